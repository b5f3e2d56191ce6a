from pipeline.config.job import *
