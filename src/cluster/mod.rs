//! Choosing how vLLM is spread over the nodes, starting it, and watching it.

pub mod causes;
pub mod choice;
pub mod compatibility;
pub mod container;
pub mod deployment;
pub mod failure;
pub mod image_check;
pub mod installed;
pub mod logs;
pub mod model_config;
pub mod network;
pub mod node;
pub mod plan;
pub mod ray_token;
pub mod ready;
pub mod redact;
pub mod runtime;
mod server;
pub mod start;
pub mod status;
pub mod support;
