# The program on NVIDIA's CUDA runtime with cuDNN: docs/CONTAINERS.md has how to build and run it with Docker,
# Podman, Apptainer and Enroot. Both bases can be replaced by a Debian 12 or Ubuntu 24.04 of your own.
ARG BASE_DEVEL=nvcr.io/nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04
ARG BASE_RUNTIME=nvcr.io/nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04

FROM ${BASE_DEVEL} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY .ci/setup /tmp/setup
RUN /tmp/setup
COPY . /src
ARG EQ_CUDA=ON
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DEQ_CUDA="${EQ_CUDA}" && \
    ninja -C /build equipoise && \
    strip -o /usr/local/bin/equipoise /build/equipoise
# The packages that hold the libraries the program is linked with, whatever this distribution calls them.
RUN ldd /usr/local/bin/equipoise | awk '$3 ~ /^\// {print $3}' | \
    while read -r lib; do dpkg-query -S "*/${lib##*/}"; done | cut -d: -f1 | sort -u >/packages

FROM ${BASE_RUNTIME}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY --from=build /packages /tmp/packages
# openmpi-bin: mpirun, to use all GPUs of a node from one container.
RUN apt-get update && \
    mapfile -t packages </tmp/packages && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" openmpi-bin && \
    rm -rf /var/lib/apt/lists/* /tmp/packages && \
    mkdir -m 1777 /work && useradd --uid 10001 --no-create-home --home-dir /tmp equipoise
COPY --from=build /usr/local/bin/equipoise /usr/local/bin/equipoise
COPY LICENSE NOTICE /usr/local/share/doc/equipoise/
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="equipoise" \
      org.opencontainers.image.description="Balances an imbalanced chest X-ray set with latent diffusion and measures whether it helped. For research, not for diagnosis." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV HOME=/tmp NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER equipoise
WORKDIR /work
HEALTHCHECK --interval=5m --timeout=30s CMD ["equipoise", "devices"]
ENTRYPOINT ["equipoise"]
CMD ["--help"]
