//! Choosing how vLLM is spread over the nodes, starting it, and watching it.

pub mod causes;
pub mod choice;
pub mod compatibility;
pub mod container;
pub mod deployment;
pub mod image_check;
pub mod network;
pub mod node;
pub mod plan;
pub mod ray_token;
pub mod ready;
pub mod runtime;
mod server;
pub mod start;
