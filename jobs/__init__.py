"""One short script per job. ``python jobs/X.py --help`` answers at once: heavy imports come later."""
