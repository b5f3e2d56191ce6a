"""The embedded data set of stories: word problems whose answers can be computed from their text."""

from pipeline.data.stories.reader import Story, read_story
from pipeline.data.stories.words import TOPICS, topic_of
from pipeline.data.stories.writer import MAX_NUMBERS, NAME, story_rows, vary, write_story

__all__ = ["MAX_NUMBERS", "NAME", "TOPICS", "Story", "read_story", "story_rows", "topic_of", "vary", "write_story"]
