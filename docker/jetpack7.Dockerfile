# Jetson Orin and Thor with JetPack 7.2: Ubuntu 24.04, Python 3.12, CUDA 13, TensorRT 10.16 or newer. Such boards run the
# same images as other ARM servers. Build it on the board.
#   docker build -f docker/jetpack7.Dockerfile -t fsseg .
#   docker run --rm --runtime nvidia -v fsseg-engines:/root/.cache/fsseg_sdk fsseg doctor
# Never built or run by this project, which had no Jetson. BASE: a tag whose CUDA the board's driver runs.
ARG BASE=nvcr.io/nvidia/tensorrt:25.10-py3
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
# The boards of this JetPack: Orin and Thor
ARG FSSEG_CUDA_ARCHITECTURES="87;110"
RUN FSSEG_CUDA=${FSSEG_CUDA} FSSEG_CUDA_ARCHITECTURES="${FSSEG_CUDA_ARCHITECTURES}" pip install --no-cache-dir . && rm -rf /src/build

# An engine is built for one GPU: mount a volume here, and it is built once.
VOLUME /root/.cache/fsseg_sdk
WORKDIR /data
ENTRYPOINT ["fsseg"]
CMD ["doctor"]
