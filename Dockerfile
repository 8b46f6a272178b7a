# syntax=docker/dockerfile:1
FROM python:3.13-slim AS libraries
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
COPY requirements.txt /tmp/requirements.txt
RUN /opt/venv/bin/pip install --require-hashes -r /tmp/requirements.txt

FROM python:3.13-slim
# A user with a name: the embedded Postgres asks for it where no SURICATE_DATABASE_URL is set.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin suricate \
    && install --directory --mode=0700 --owner=suricate --group=suricate /data
COPY --from=libraries /opt/venv /opt/venv
WORKDIR /opt/suricate
COPY pyproject.toml LICENSE ./
COPY migrations migrations
COPY app app
RUN /opt/venv/bin/python -m compileall -q app
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/suricate PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SURICATE_DATA_DIR=/data
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('SURICATE_PORT', '8000') + '/livez', timeout=2)"]
ENTRYPOINT ["python", "-m", "app.cli"]
CMD ["serve"]
