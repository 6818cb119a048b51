# Follows `ray start ... &` in the head container. $1: program that waits for all nodes, $2 nodes,
# $3 GPUs, then the server's command. When Ray or the server ends, so does the container, and its
# restart policy begins again.
trap 'exit 143' TERM INT
# vLLM copies the driver's environment to its Ray workers; these differ from node to node.
mkdir -p ~/.config/vllm
echo '["VLLM_HOST_IP", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"]' >~/.config/vllm/ray_non_carry_over_env_vars.json
{ python3 -c "$1" "$2" "$3" && shift 3 && exec "$@"; } &
wait -n
exit 1
