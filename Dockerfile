# syntax=docker/dockerfile:1
# One image for web, worker, scheduler and migrate: docs/deployment.md. It needs no writable file system but /tmp.

FROM python:3.11-slim-bookworm AS packages
COPY requirements.txt ./
# Wheels only, so no compiler is needed.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: --requirement requirements.txt

FROM python:3.11-slim-bookworm AS portal
ENV PATH=/opt/venv/bin:$PATH
COPY --from=packages /opt/venv /opt/venv
WORKDIR /opt/portal
COPY . .
# No file depends on these settings. The real ones come from the environment.
RUN SECRET_KEY=build DATABASE_URL=postgresql://build/build CELERY_BROKER_URL=redis://build CACHE_URL=redis://build \
    ALLOWED_HOSTS=build python manage.py collectstatic --noinput --verbosity 0
RUN python -m compileall -q .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin portal
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=packages /opt/venv /opt/venv
# root's: the portal can read its code and change nothing.
COPY --from=portal /opt/portal /opt/portal
WORKDIR /opt/portal
# Fargate gives a mounted folder to root unless the image declares it: it keeps the rights that /tmp has here.
VOLUME ["/tmp"]
USER 10001
EXPOSE 8000
# Of the web process. Others switch it off: their heartbeats are in /health and /metrics.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["gunicorn", "-c", "python:portal.gunicorn_conf", "--bind", "0.0.0.0:8000", "portal.wsgi"]
