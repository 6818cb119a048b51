# Follows `ray start ... &` in the head container. $1: program that runs the server while Ray has all nodes, $2 nodes,
# $3 GPUs, then the server's command. When Ray or the server ends, so does the container, and its restart policy
# begins again.
trap 'exit 143' TERM INT
# vLLM copies the driver's environment to its Ray workers; these differ from node to node.
config=${VLLM_CONFIG_ROOT:-${XDG_CONFIG_HOME:-$HOME/.config}/vllm}
mkdir -p "$config"
echo '["VLLM_HOST_IP", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"]' >"$config/ray_non_carry_over_env_vars.json"
python3 -c "$@" &
wait -n
exit 1
