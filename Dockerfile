# One image for every process: `modelmeter api`, `worker`, `keeper`, `migrate`, `etl`.
#   docker build . -t modelmeter:v1
#   docker buildx build --platform linux/amd64,linux/arm64 .        both kinds of machine
# Everything is a wheel: nothing is compiled, and pip stays behind in the first stage.

ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
# The queues' client libraries. Pub/Sub's are 60 MB, so they come when asked for: --build-arg EXTRAS=nats,pubsub
ARG EXTRAS=nats
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_ONLY_BINARY=:all:
WORKDIR /build
# The libraries first: they change less often than the code, and this layer is kept.
COPY pyproject.toml deploy/image/requirements.py deploy/image/slim.py ./
RUN python -m venv --without-pip /opt/modelmeter \
 && python requirements.py pyproject.toml "${EXTRAS}" >requirements.txt \
 && python -m pip --python /opt/modelmeter/bin/python install --quiet -r requirements.txt \
 && python slim.py /opt/modelmeter
COPY README.md LICENSE ./
COPY src src
RUN python -m pip wheel --quiet --no-deps --wheel-dir dist . \
 && python -m pip --python /opt/modelmeter/bin/python install --quiet --no-deps dist/*.whl
COPY deploy/image/rootfs.py deploy/image/sbom.py deploy/image/healthcheck.py ./
RUN cp healthcheck.py /opt/modelmeter/ \
 && python rootfs.py /rootfs /opt/modelmeter \
 && mkdir -p /rootfs/usr/share/sbom \
 && /opt/modelmeter/bin/python sbom.py /rootfs >/rootfs/usr/share/sbom/modelmeter.cdx.json

# Python and what it loads; no shell, no package manager. `kubectl debug` brings a shell when one is needed.
FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="modelmeter" \
      org.opencontainers.image.description="A metrics server for AI model stats" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /rootfs /
ENV PATH=/opt/modelmeter/bin:/usr/local/bin:/usr/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    MODELMETER_HOST=0.0.0.0 \
    MODELMETER_PORT=8000 \
    MODELMETER_METRICS_PORT=9090
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "/opt/modelmeter/healthcheck.py"]
ENTRYPOINT ["modelmeter"]
CMD ["api"]
