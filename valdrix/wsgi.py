"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "valdrix.settings")

_django = get_wsgi_application()

from valdrix.serving import GuardedApplication  # noqa: E402 - settings have to be in force first

application = GuardedApplication(_django)
