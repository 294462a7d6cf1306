"""The WSGI application that gunicorn serves."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "valdrix.settings")

_django = get_wsgi_application()

from django.conf import settings  # noqa: E402 - settings have to be in force first
from django.urls import get_resolver  # noqa: E402 - the same

from valdrix.celery import prompt_task  # noqa: E402 - the same
from valdrix.kernel import prompting  # noqa: E402 - the same
from valdrix.kernel.http.refusing import RefusingApplication  # noqa: E402 - the same
from valdrix.kernel.http.shedding import SheddingApplication  # noqa: E402 - the same
from valdrix.kernel.http.yielding import MACHINE  # noqa: E402 - the same
from valdrix.kernel.throttling.limiter import limiter  # noqa: E402 - the same
from valdrix.serving import GuardedApplication  # noqa: E402 - the same

if settings.CELERY_BROKER_URL:
    prompting.bind(prompt_task)

# All doors are loaded before anybody knocks: it takes a second, in which the first gates would wait, and
# what is loaded now is nothing that the collector looks through.
_ = get_resolver().url_patterns

application = RefusingApplication(
    SheddingApplication(
        GuardedApplication(_django),
        most=settings.WEB_REQUESTS_AT_ONCE,
        most_others=settings.WEB_OTHERS_AT_ONCE,
        most_of_one=settings.WEB_TENANT_AT_ONCE,
        busy=MACHINE,
    ),
    limiter=limiter,
)
