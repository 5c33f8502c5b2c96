# A server with an NVIDIA GPU: TensorRT from NVIDIA, ONNX Runtime for the GPU beside it.
#   docker build -f docker/server.Dockerfile -t fsseg .
#   docker run --rm --gpus all -v fsseg-engines:/root/.cache/fsseg_sdk fsseg doctor
# Never built or run by this project, which had no GPU. Another BASE: see the tags of NVIDIA's image; its
# TensorRT must be 10.3 to 11.x.
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
# Name those of your GPUs, such as 90, for a shorter build
ARG FSSEG_CUDA_ARCHITECTURES=all
RUN FSSEG_CUDA=${FSSEG_CUDA} FSSEG_CUDA_ARCHITECTURES="${FSSEG_CUDA_ARCHITECTURES}" pip install --no-cache-dir ".[gpu]" && rm -rf /src/build

# An engine is built for one GPU: mount a volume here, and it is built once.
VOLUME /root/.cache/fsseg_sdk
WORKDIR /data
ENTRYPOINT ["fsseg"]
CMD ["doctor"]
