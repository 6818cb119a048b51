//! Choosing how vLLM is spread over the nodes, starting it, and watching it.

pub mod causes;
pub mod choice;
pub mod compatibility;
pub mod container;
pub mod deployment;
pub mod node;
pub mod plan;
pub mod ready;
pub mod start;
