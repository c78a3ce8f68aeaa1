# One image for all of smsqueue: workers, receivers, Flower and the command line.
#
#   docker build -t smsqueue .
#
# Your gateway goes into /app, the working folder, which is searched for the module that
# SMSQUEUE_GATEWAY names. Mount it there, or make an image of your own:
#
#   FROM smsqueue
#   COPY shop_sms.py /app/
#
# docs/deploy/README.md says more.

ARG PYTHON=3.12

# --- All packages, by the hashes of requirements/, in a folder of their own ---
FROM python:${PYTHON}-slim AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python -m venv /opt/smsqueue
WORKDIR /src
COPY requirements requirements
RUN /opt/smsqueue/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY smsqueue smsqueue
COPY workers workers
COPY receivers receivers
RUN /opt/smsqueue/bin/python -m pip wheel --no-index --no-build-isolation \
        --no-deps --wheel-dir /wheels . \
    && python -m venv --clear /opt/smsqueue \
    && /opt/smsqueue/bin/pip install --require-hashes --only-binary :all: -r requirements/server.txt \
    && /opt/smsqueue/bin/pip install --no-index "$(echo /wheels/*.whl)[receivers,flower,uvloop]" \
    && /opt/smsqueue/bin/pip check \
    && /opt/smsqueue/bin/python -m compileall -q /opt/smsqueue/lib

# --- What runs: no build tool, no source tree, no root ---
FROM python:${PYTHON}-slim
RUN groupadd --gid 10001 smsqueue \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home \
        --shell /usr/sbin/nologin smsqueue
COPY --from=packages /opt/smsqueue /opt/smsqueue
# Log lines at once, nothing written beside the code; gunicorn keeps its control socket in HOME.
ENV PATH=/opt/smsqueue/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
WORKDIR /app
USER 10001:10001
# Each service has a check of its own: docker-compose.yml, docs/deploy/kubernetes.yaml.
HEALTHCHECK NONE
# In exec form, so that the process gets SIGTERM itself and ends its calls first.
CMD ["smsqueue", "--help"]
