# Targets: cli (no torch), cpu, cuda. `docker compose build` makes what docker-compose.yml needs.
#
# TORCH_INDEX: index of torch's CPU builds, for the target cpu; pytorch.org's installation page names it. Left empty,
# the package index's own build is installed: it runs on CPUs as well, and is some gigabytes larger.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/orch
ENV PATH=/opt/orch/bin:$PATH
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM build AS build-cli
RUN pip install "$(echo /wheels/*.whl)[postgres]"

FROM build AS build-cpu
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" torch torchvision; fi \
    && pip install "$(echo /wheels/*.whl)[worker,postgres]"

FROM build AS build-cuda
RUN pip install "$(echo /wheels/*.whl)[worker,postgres]"

FROM python:${PYTHON}-slim AS runtime
# The folders exist here so that fresh volumes belong to the user.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin orch \
    && install --directory --owner=orch --group=orch --mode=0700 /var/lib/orch /srv/artifacts /srv/data /srv/locks
ENV PATH=/opt/orch/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORCH_HOME=/var/lib/orch \
    ORCH_ARTIFACTS=/srv/artifacts \
    ORCH_DATA_CACHE=/srv/data \
    ORCH_LOCK_DIR=/srv/locks
WORKDIR /var/lib/orch
USER 10001:10001
CMD ["orch", "--help"]

FROM runtime AS cli
COPY --from=build-cli /opt/orch /opt/orch

FROM runtime AS node
# Healthy is a node whose heartbeat file is young.
HEALTHCHECK --interval=10s --timeout=5s --retries=3 --start-period=60s CMD ["python", "-m", "worker.health"]

FROM node AS cpu
COPY --from=build-cpu /opt/orch /opt/orch
CMD ["orch", "worker", "--devices", "cpu"]

FROM node AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/orch /opt/orch
CMD ["orch", "worker", "--devices", "one"]
