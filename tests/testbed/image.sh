# The test images: a small Debian with a real Ray and a stand-in for vLLM, or with a real vLLM (vllm.sh). Built once
# and kept in IMAGE_CACHE.
# shellcheck shell=bash

IMAGE_CACHE=${TESTBED_CACHE:-/var/cache/bundle-testbed}
RAY_VERSION=2.60.0

command_image() {
    local variant=${1:-ray} name recipe archive
    case $variant in
        ray) name=bundle-test/vllm-ray:1 ;;
        noray) name=bundle-test/vllm-mp:1 ;;
        vllm) name=bundle-test/vllm-cpu:1 ;;
        *) fail "there are the images ray, noray and vllm" ;;
    esac
    export DOCKER_HOST=unix://$ORIGIN_SOCKET
    docker version >/dev/null 2>&1 || fail "the origin has no dockerd; run \`testbed up 0\` first"
    recipe=$(recipe_hash "$variant")
    mkdir -p "$IMAGE_CACHE"
    exec 8>"$IMAGE_CACHE/.lock"
    flock 8
    archive=$IMAGE_CACHE/$variant-$recipe.tar
    if [ "$variant" = vllm ]; then
        [ -e "$archive" ] || build_image "$variant" "$name" "$recipe" "$archive" >&2
        echo "$archive"
        return
    fi
    if [ "$(docker image inspect --format '{{index .Config.Labels "recipe"}}' "$name" 2>/dev/null)" != "$recipe" ]; then
        [ -e "$archive" ] || build_image "$variant" "$name" "$recipe" "$archive" >&2
        docker load --quiet --input "$archive" >&2
    fi
    echo "$name"
}

recipe_hash() {
    local more=()
    [ "$1" != vllm ] || more=("$HERE/vllm.sh" "$HERE"/vllm/{requirements,vllm})
    cat "$HERE/image.sh" "$HERE"/image/* "${more[@]}" /etc/os-release | sha256sum | cut -c 1-16
}

build_image() {
    local variant=$1 name=$2 recipe=$3 archive=$4 dockerfile=image/Dockerfile context python
    context=$(mktemp -d "$IMAGE_CACHE/build.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$context'" EXIT
    base_system "$context"
    python=$(basename "$(tar -tf "$context/base.tar" --wildcards './usr/bin/python3.[0-9]*')")
    case $variant in
        ray) ray_layer "$context/ray" "$python" && vllm_layer "$context/vllm" "$python" 0.6.4.post1 ;;
        noray) vllm_layer "$context/vllm" "$python" 0.19.0 ;;
        vllm) vllm_cpu_layer "$context/vllm" "$python" && dockerfile=vllm/Dockerfile ;;
    esac
    # The classic builder: BuildKit wants a plugin, and nothing here needs it.
    DOCKER_BUILDKIT=0 docker build --quiet --target "$variant" --label "recipe=$recipe" --tag "$name" \
        --file "$HERE/$dockerfile" "$context"
    docker save --output "$archive.part" "$name"
    rm -f "$IMAGE_CACHE/$variant"-*.tar
    mv "$archive.part" "$archive"
}

# base.tar, of the same distribution as this machine. Both images share it.
base_system() {
    local context=$1 cached
    cached=$IMAGE_CACHE/base-$({ declare -f base_system; cat /etc/os-release; } | sha256sum | cut -c 1-16).tar
    if [ ! -e "$cached" ]; then
        debootstrap --variant=minbase --include=python3-minimal,libpython3-stdlib,libnuma1,procps \
            "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$context/base"
        rm -rf "$context"/base/{var/cache/apt,var/lib/apt/lists,usr/share/{doc,man,locale,info,zoneinfo}}/*
        tar -C "$context/base" --exclude './dev/*' -cf "$cached.part" .
        rm -f "$IMAGE_CACHE"/base-*.tar
        mv "$cached.part" "$cached"
        rm -rf "$context/base"
    fi
    ln "$cached" "$context/base.tar"
}

# Ray as `pip install ray` makes it, without what only its libraries above the core use.
ray_layer() {
    local root=$1 python=$2 packages
    packages=$root/usr/local/lib/$python/dist-packages
    python3 -m pip install --quiet --root-user-action ignore --no-compile --only-binary :all: \
        --python-version "${python#python}" --target "$packages" "ray==$RAY_VERSION"
    rm -rf "${packages:?}"/{bin,ray/jars,ray/cpp} "$packages"/ray/{rllib,llm,data,train,tune,serve,dashboard/client}
    install -D "$HERE/image/ray" "$root/usr/local/bin/ray"
}

vllm_layer() {
    local root=$1 packages=$1/usr/local/lib/$2/dist-packages version=$3
    mkdir -p "$packages/vllm/entrypoints/openai" "$packages/vllm-$version.dist-info"
    install -D "$HERE/image/vllm" "$root/usr/local/bin/vllm"
    install -m 644 "$HERE"/image/*.py "$packages/vllm"
    cp "$HERE/image/vllm" "$packages/vllm/entrypoints/openai/api_server.py"
    echo "__version__ = '$version'" >"$packages/vllm/__init__.py"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$packages/vllm-$version.dist-info/METADATA"
}
