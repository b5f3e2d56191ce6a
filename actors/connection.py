"""Connects a job to Ray."""

import logging
import os
from pathlib import Path
from typing import Any

import ray

import actors
import pipeline
from pipeline.errors import ClusterError

PRIVATE = "GRADUS_PRIVATE_RAY"
"""Set in the environment of a private Ray, and so in all of its workers."""


def never_grows() -> bool:
    """True in all processes of a private Ray, which will always lack what it lacks at its start."""
    return PRIVATE in os.environ


def joins_cluster() -> bool:
    """True if the job was submitted to a cluster; otherwise it starts a private Ray."""
    return "RAY_ADDRESS" in os.environ


def connect(**options: Any) -> None:
    """Connect to the cluster at RAY_ADDRESS, or start a private Ray, without a word on the console.

    Args:
        options: of ``ray.init``.

    Raises:
        ClusterError: the cluster cannot be reached, or refuses us.
    """
    joins = joins_cluster()
    if not joins:
        os.environ[PRIVATE] = "1"
    try:
        ray.init(
            address=None if joins else "local",
            include_dashboard=None if joins else False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            **options,
        )
    except (ConnectionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        if not joins:
            raise ClusterError(f"no Ray could be started on this machine: {reason}") from None
        raise ClusterError(
            f"no Ray cluster at RAY_ADDRESS={os.environ['RAY_ADDRESS']}: {reason}. One that wants a token needs "
            "RAY_AUTH_MODE=token and the token's file here too: see README.md."
        ) from None


def connect_with_code(**private: Any) -> None:
    """Like ``connect``, for tasks that import our code. A cluster is sent the code, unless the job was submitted to it.

    Args:
        private: options of ``ray.init`` for a private Ray.
    """
    if not joins_cluster():
        connect(**private)
    elif "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # submitted: the cluster already has our code
        connect()
    else:
        folders = [Path(package.__file__).parent for package in (actors, pipeline) if package.__file__]
        connect(runtime_env={"py_modules": [str(folder) for folder in folders]})
