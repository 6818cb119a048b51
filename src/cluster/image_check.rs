//! What an image can do, against what the spec wishes: said when it is packed, because behind the
//! gap there is no other image.

use super::choice::choose_mode;
use super::plan::hardware::least_driver;
use crate::bundle::cluster_spec::ClusterSpec;
use crate::bundle::manifest::ImageFacts;
use crate::error::Result;

/// Refuses an image that cannot serve as the spec wishes; returns what the operator should know.
/// Where the spec names no target, the number of nodes is open: what fails on several is a remark.
pub fn check_image(spec: &ClusterSpec, image: &ImageFacts) -> Result<Vec<String>> {
    let target = spec.target.as_ref().map(|target| target.nodes as usize);
    choose_mode(spec.executor, image, target.unwrap_or(1))?;
    let mut remarks = vec![describe(image)?];
    if target.is_none()
        && let Err(error) = choose_mode(spec.executor, image, 2)
    {
        remarks.push(format!("on one node only: {error}"));
    }
    Ok(remarks)
}

fn describe(image: &ImageFacts) -> Result<String> {
    let version = |name: &str, found: Option<&String>| match found {
        Some(version) => format!("{name} {version}"),
        None => format!("no {name}"),
    };
    let driver = match &image.cuda {
        Some(cuda) => least_driver(cuda)?,
        None => None,
    };
    let driver = driver.map_or_else(String::new, |driver| {
        format!(": the nodes need NVIDIA driver {driver} or newer")
    });
    Ok(format!(
        "the image has {}, {}, {}{driver}",
        version("vLLM", image.vllm.as_ref()),
        version("Ray", image.ray.as_ref()),
        version("CUDA", image.cuda.as_ref())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(vllm: &str, ray: bool) -> ImageFacts {
        ImageFacts {
            vllm: Some(vllm.into()),
            ray: ray.then(|| "2.9.0".into()),
            cuda: Some("12.4.1".into()),
        }
    }

    fn verdict(spec: &str, image: &ImageFacts) -> Result<Vec<String>> {
        check_image(&toml::from_str(spec).unwrap(), image)
    }

    #[test]
    fn an_image_that_cannot_serve_as_wished_is_refused() {
        let refused =
            |spec: &str, image: &ImageFacts| verdict(spec, image).unwrap_err().to_string();
        let text = refused("executor = \"ray\"", &image("0.19.0", false));
        assert!(text.contains("the image has no Ray"), "{text}");
        let old = image("0.6.4.post1", false);
        let text = refused("executor = \"mp\"\ntarget = \"4x4xT4\"", &old);
        assert!(text.contains("on 4 nodes with Ray only"), "{text}");
        assert!(verdict("target = \"1x4xT4\"", &old).is_ok());
    }

    #[test]
    fn what_it_has_and_needs_is_said() {
        let said = verdict("", &image("0.6.4.post1", true)).unwrap();
        assert_eq!(
            said,
            [
                "the image has vLLM 0.6.4.post1, Ray 2.9.0, CUDA 12.4.1: the nodes need NVIDIA driver 525.60.13 or newer"
            ]
        );
        let said = verdict("", &image("0.6.4.post1", false)).unwrap();
        assert!(
            said[1].starts_with("on one node only: vLLM 0.6.4.post1"),
            "{said:?}"
        );
        let said = verdict("", &ImageFacts::default()).unwrap();
        assert_eq!(said[0], "the image has no vLLM, no Ray, no CUDA");
    }
}
