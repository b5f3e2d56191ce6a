"""The embedded data set of stories: word problems whose answers can be computed from their text."""

from pipeline.data.stories.reader import Story, read_story

__all__ = ["Story", "read_story"]
