//! Choosing how vLLM is spread over the nodes, starting it, and watching it.
