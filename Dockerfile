# docker build --tag tokenserver:local --build-arg REVISION="$(git rev-parse HEAD)" .
#
# The base is pinned by version. A digest is stricter: `docker buildx imagetools inspect` shows it, and
# `--build-arg PYTHON_IMAGE=python:3.12.12-slim-bookworm@sha256:…` takes it.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
# Of setup.cfg: server, or one that brings more.
ARG EXTRA=server
# What others made, as requirements/ names it, by version and hash; nothing is compiled, and no setup code runs.
COPY requirements requirements
RUN python3 -m venv /builder \
    && /builder/bin/pip install --no-deps --only-binary :all: --require-hashes \
        -r requirements/build.txt -r requirements/tools.txt \
    && python3 -m venv --without-pip /opt/tokenserver \
    && /builder/bin/pip --python /opt/tokenserver/bin/python install --compile --no-deps --only-binary :all: \
        --require-hashes --report /installed.json -r requirements/${EXTRA}.txt
COPY . .
# The wheel first: what is installed is what would be published. Its migrations land in the venv's share/, and beside
# them what all this consists of.
RUN /builder/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /builder/bin/pip --python /opt/tokenserver/bin/python install --compile --no-deps /wheels/tokenserver-*.whl \
    && /builder/bin/python requirements/sbom.py /opt/tokenserver /installed.json \
        >/opt/tokenserver/share/tokenserver/sbom.cdx.json

FROM ${PYTHON_IMAGE}
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="tokenserver" \
      org.opencontainers.image.description="OAuth 2 and OpenID Connect token server" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A number that volumes and secrets can be given to. The folders are made here because an empty named volume takes
# the owner and mode of the folder that it is mounted over.
RUN groupadd --gid 10001 tokenserver \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tokenserver \
    && install --directory --owner=10001 --group=10001 --mode=0700 \
        /var/lib/tokenserver /var/lib/tokenserver/keys /var/lib/tokenserver/data \
    && install --directory --mode=0755 /etc/tokenserver

COPY --from=builder /opt/tokenserver /opt/tokenserver

# (KEYS_DIR is a path, no secret.)
# hadolint ignore=DL3064
ENV PATH=/opt/tokenserver/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    TOKENSERVER_ENV=production \
    TOKENSERVER_HOST=0.0.0.0 \
    TOKENSERVER_KEYS_DIR=/var/lib/tokenserver/keys \
    TOKENSERVER_DATA_DIR=/var/lib/tokenserver/data

# The root file system may be read-only. Written to: the keys' folder, which has to be a volume that all nodes share
# and outlives them (no VOLUME here: an anonymous one would be lost with its container), and /tmp. The data folder is
# for embedded stores alone, which production refuses.
USER 10001:10001
# A `.env` mounted here is read: the place for secrets that shouldn't show in the environment.
WORKDIR /etc/tokenserver
EXPOSE 8000

# The process alone: an orchestrator that restarted nodes because a store is away would make it worse. /readyz is for
# whoever sends requests here.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('TOKENSERVER_PORT') or 8000), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]

# Requests that have begun are finished within 8 s of SIGTERM, so give it more than 10 s before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tokenserver"]
CMD ["serve"]
