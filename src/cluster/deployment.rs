//! One server over all nodes, as data: everything that the container commands follow from.

use std::net::{IpAddr, SocketAddr};

use crate::agent::facts::Facts;
use crate::bundle::cluster_spec::{Executor, Gpus};
use crate::bundle::manifest::{ImageFacts, Manifest};
use crate::error::{Error, Result};

use super::choice::{Choice, NodeGpus, choose};
use super::runtime::{Runtime, of_command};

/// Port of the Ray head, as in the reference deployment.
pub const RAY_PORT: u16 = 6379;

/// Port on which vLLM's own multi-node mode meets.
pub const MASTER_PORT: u16 = 29501;

/// Port of the head on which the nodes meet: for the test of the network, which takes the next two
/// as well, and to start the ranks of vLLM's own multi-node mode together.
pub const MEETING_PORT: u16 = 29511;

/// The port of the head to which the executor's processes on the other nodes connect.
#[must_use]
pub fn executor_port(manifest: &Manifest) -> u16 {
    let has_ray = manifest
        .images
        .first()
        .is_some_and(|image| image.facts.ray.is_some());
    match manifest.cluster.executor {
        Executor::Mp => MASTER_PORT,
        Executor::Auto if !has_ray => MASTER_PORT,
        Executor::Auto | Executor::Ray => RAY_PORT,
    }
}

/// A node's part in the server.
#[derive(Clone, Debug)]
pub struct Member {
    /// The node's own address.
    pub address: IpAddr,
    /// The interface that owns it.
    pub interface: Option<String>,
    /// GPUs that it brings.
    pub gpus: u32,
    /// What runs its container.
    pub runtime: &'static dyn Runtime,
}

/// What hosts.txt says about a node beyond how to reach it.
#[derive(Clone, Debug)]
pub struct NodeWish {
    /// The node's own address.
    pub address: IpAddr,
    /// Fewer GPUs than it has.
    pub gpus: Option<u32>,
    /// Another interface than the one that owns the address.
    pub interface: Option<String>,
}

/// One server over all nodes. The first member is the head.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// What was installed.
    pub manifest: Manifest,
    /// What `auto` came to.
    pub choice: Choice,
    /// The nodes, head first.
    pub members: Vec<Member>,
}

impl Deployment {
    /// Puts spec, hosts.txt and facts together; refuses what cannot work. `nodes` has the head
    /// first.
    pub fn plan(manifest: Manifest, nodes: &[(NodeWish, Facts)]) -> Result<Self> {
        let members: Vec<Member> = nodes
            .iter()
            .map(|(wish, facts)| member(manifest.cluster.gpus, wish, facts))
            .collect();
        let gpus = gpus(manifest.cluster.gpus, nodes);
        if manifest.models.is_empty() || manifest.images.is_empty() {
            return Err(Error::Usage(format!(
                "bundle {} has nothing to serve: it needs a model and an image",
                manifest.name
            )));
        }
        let no_facts = ImageFacts::default();
        let image = manifest
            .images
            .first()
            .map_or(&no_facts, |image| &image.facts);
        let choice = choose(&manifest.cluster, image, &gpus)?;
        Ok(Self {
            manifest,
            choice,
            members,
        })
    }

    /// Where the API answers.
    #[must_use]
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.members
            .first()
            .map(|head| SocketAddr::new(head.address, self.manifest.cluster.port))
    }

    /// The head's own address.
    #[must_use]
    pub fn head(&self) -> IpAddr {
        self.members
            .first()
            .map_or(IpAddr::from([0; 4]), |head| head.address)
    }

    /// The image that the containers run.
    #[must_use]
    pub fn image(&self) -> &str {
        let image = self.manifest.images.first();
        image.map_or("", |image| &image.reference)
    }
}

/// What each node brings.
#[must_use]
pub fn gpus(wanted: Gpus, nodes: &[(NodeWish, Facts)]) -> Vec<NodeGpus> {
    let of_node = |(wish, facts): &(NodeWish, Facts)| NodeGpus {
        node: wish.address.to_string(),
        count: gpu_count(wanted, wish, facts),
        capabilities: capabilities(wanted, facts),
    };
    nodes.iter().map(of_node).collect()
}

fn gpu_count(gpus: Gpus, wish: &NodeWish, facts: &Facts) -> u32 {
    let found = match gpus {
        Gpus::All => u32::try_from(facts.gpus.len()).unwrap_or(u32::MAX),
        // A CPU image has one worker per node, whatever GPUs are beside it.
        Gpus::None => 1,
    };
    wish.gpus.unwrap_or(found)
}

fn member(gpus: Gpus, wish: &NodeWish, facts: &Facts) -> Member {
    Member {
        address: wish.address,
        interface: wish.interface.clone().or_else(|| facts.interface.clone()),
        gpus: gpu_count(gpus, wish, facts),
        runtime: of_command(
            facts
                .runtime
                .as_ref()
                .map_or("docker", |found| &found.command),
        ),
    }
}

fn capabilities(gpus: Gpus, facts: &Facts) -> Vec<String> {
    match gpus {
        Gpus::All => facts
            .gpus
            .iter()
            .map(|gpu| gpu.compute_capability.clone())
            .collect(),
        Gpus::None => Vec::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::agent::facts::Gpu;
    use crate::bundle::cluster_spec::ClusterSpec;
    use crate::bundle::manifest::{FORMAT, Image, Model};
    use crate::digest::Sha256;

    /// The reference deployment, without content.
    pub fn manifest(cluster: ClusterSpec, ray: bool) -> Manifest {
        let model = Model {
            repo: "deepseek-ai/DeepSeek-R1-Distill-Llama-70B".into(),
            revision: "main".into(),
            commit: None,
            path: "/data/vllm_model/DeepSeek-R1-Distill-Llama-70B"
                .parse()
                .unwrap(),
            files: Vec::new(),
        };
        let image = Image {
            reference: "vllm/vllm-openai:v0.6.4.post1".into(),
            platform: "linux/amd64".into(),
            config: Sha256::of(b"config"),
            layers: Vec::new(),
            registry_digest: None,
            facts: ImageFacts {
                ray: ray.then(|| "2.39.0".into()),
                ..ImageFacts::default()
            },
            layer_facts: Vec::new(),
            files: Vec::new(),
        };
        Manifest {
            format: FORMAT,
            name: "deepseek-r1-70b".parse().unwrap(),
            serial: 0,
            base: None,
            models: vec![model],
            images: vec![image],
            extras: Vec::new(),
            cluster,
            chunks: Vec::new(),
            volumes: Vec::new(),
            parity: None,
        }
    }

    /// `count` nodes with four T4 each, from 10.0.0.11 on.
    pub fn nodes(count: u8) -> Vec<(NodeWish, Facts)> {
        let gpu = Gpu {
            name: "Tesla T4".into(),
            memory_mib: 15360,
            compute_capability: "7.5".into(),
        };
        let interface = Some("ens13f0".to_owned());
        let facts = Facts {
            interface,
            gpus: vec![gpu; 4],
            ..Facts::default()
        };
        (0..count)
            .map(|number| {
                let address = IpAddr::from([10, 0, 0, 11 + number]);
                (
                    NodeWish {
                        address,
                        gpus: None,
                        interface: None,
                    },
                    facts.clone(),
                )
            })
            .collect()
    }

    #[test]
    fn hosts_txt_wins_over_what_the_node_says() {
        let mut nodes = nodes(2);
        for (wish, _) in &mut nodes {
            (wish.gpus, wish.interface) = (Some(2), Some("ib0".into()));
        }
        let deployment = Deployment::plan(manifest(ClusterSpec::default(), true), &nodes).unwrap();
        assert_eq!(deployment.members[1].gpus, 2);
        assert_eq!(deployment.members[1].interface.as_deref(), Some("ib0"));
        assert_eq!(deployment.choice.tensor_parallel, 2);
        assert_eq!(deployment.endpoint().unwrap().to_string(), "10.0.0.11:8000");
    }

    #[test]
    fn a_cpu_image_has_one_worker_per_node_beside_idle_gpus() {
        let cluster = toml::from_str("gpus = \"none\"\ntensor_parallel = 2\npipeline_parallel = 1");
        let deployment = Deployment::plan(manifest(cluster.unwrap(), true), &nodes(2)).unwrap();
        assert_eq!(
            [1, 1],
            [deployment.members[0].gpus, deployment.members[1].gpus]
        );
        assert_eq!(
            (deployment.choice.tensor_parallel, deployment.choice.dtype),
            (2, None)
        );
    }

    #[test]
    fn a_bundle_without_a_model_serves_nothing() {
        let mut manifest = manifest(ClusterSpec::default(), true);
        manifest.models.clear();
        assert_eq!(
            Deployment::plan(manifest, &nodes(1))
                .unwrap_err()
                .exit_code(),
            2
        );
    }
}
