# Jetson Orin with JetPack 6.2: Ubuntu 22.04, Python 3.10, CUDA 12.6, TensorRT 10.3. Build it on the board.
#   docker build -f docker/jetpack6.Dockerfile -t fsseg .
#   docker run --rm --runtime nvidia -v fsseg-engines:/root/.cache/fsseg_sdk fsseg doctor
# Never built or run by this project, which had no Jetson. BASE must fit the release of the board (/etc/nv_tegra_release).
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}

RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends g++ python3-dev python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/*

# TensorRT's Python package is the system's, so the environment must see the system's packages.
RUN python3 -m venv --system-site-packages /opt/fsseg && /opt/fsseg/bin/pip install --no-cache-dir --upgrade pip
ENV PATH=/opt/fsseg/bin:${PATH}

WORKDIR /src
COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY csrc csrc
COPY fsseg_sdk fsseg_sdk
# auto: CUDA kernels where the image has nvcc and there are some; 1: these or an error; 0: none.
ARG FSSEG_CUDA=auto
# The boards of this JetPack: Orin
ARG FSSEG_CUDA_ARCHITECTURES=87
RUN FSSEG_CUDA=${FSSEG_CUDA} FSSEG_CUDA_ARCHITECTURES="${FSSEG_CUDA_ARCHITECTURES}" pip install --no-cache-dir . && rm -rf /src/build

# An engine is built for one GPU: mount a volume here, and it is built once.
VOLUME /root/.cache/fsseg_sdk
WORKDIR /data
ENTRYPOINT ["fsseg"]
CMD ["doctor"]
