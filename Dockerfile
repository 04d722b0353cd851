# syntax=docker/dockerfile:1
# Sluicegate as an image: a virtual environment built in one stage and copied into the next, which
# has no compiler, no pip cache, no root and nothing that it needs to write to.
#
#   docker build -t sluicegate .
#   docker build -t sluicegate --build-arg COMPILED=0 .   # pure Python, built in seconds
#   docker run -p 8080:8080 -e UPSTREAM=http://host.docker.internal:8000 sluicegate
#   docker run -p 8080:8080 -v ./my:/etc/sluicegate:ro sluicegate

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/sluicegate
# The dependencies first, and alone: they change less often than the code.
COPY requirements.lock /src/
# Wheels only: a dependency that would have to be compiled fails the build here, loudly.
RUN /opt/sluicegate/bin/pip install --require-hashes --only-binary :all: -r /src/requirements.lock
# The request path is compiled to C (README, "The compiled build"); the compiler stays in this stage.
ARG COMPILED=1
RUN if [ "$COMPILED" = 1 ]; then apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; fi
COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY lua /src/lua
COPY policies /src/policies
COPY config /src/config
COPY proxy /src/proxy
RUN if [ "$COMPILED" = 1 ]; then export HATCH_BUILD_HOOK_ENABLE_CUSTOM=true; fi \
    && /opt/sluicegate/bin/pip install --no-deps /src \
    && /opt/sluicegate/bin/sluicegate --version \
    && /opt/sluicegate/bin/pip uninstall --yes pip \
    && /opt/sluicegate/bin/python -m compileall -q /opt/sluicegate/lib

FROM python:${PYTHON}-slim
COPY --from=build /opt/sluicegate /opt/sluicegate
# What runs where nothing is mounted over it, told by environment variables.
COPY deploy/container /etc/sluicegate
ENV PATH=/opt/sluicegate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SLUICEGATE_CONFIG=/etc/sluicegate/gateway.yaml
WORKDIR /etc/sluicegate
# A number, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 10001:10001
EXPOSE 8080 9091
STOPSIGNAL SIGTERM
# The probe listener of deploy/container/gateway.yaml; slim images have no curl.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 9091, timeout=2); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["sluicegate"]
CMD ["run"]
