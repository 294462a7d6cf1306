"""The application's own settings; only the routes have one more, for the floor of the web."""

from valdrix.settings import *  # noqa: F403 - every setting is taken over

ROOT_URLCONF = "tests.benchmarks.urls"
