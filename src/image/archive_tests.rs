use super::*;

/// Keeps every part in memory.
#[derive(Default)]
struct Parts {
    ended: Vec<(String, Vec<u8>)>,
    open: Option<(String, Vec<u8>)>,
}

impl Sink for Parts {
    fn has(&self, _layer: Sha256) -> Option<LayerFacts> {
        None
    }

    fn keep(&mut self, _layer: Sha256) -> Result<()> {
        unreachable!()
    }

    fn begin(&mut self, label: &RelPath, _promised: Option<Sha256>) -> Result<()> {
        self.open = Some((label.to_string(), Vec::new()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.open.as_mut().unwrap().1.extend_from_slice(bytes);
        Ok(())
    }

    fn point(&mut self, _: Point) {}

    fn left_at(&self, _: Sha256) -> Option<Point> {
        None
    }

    fn take_packed(&mut self, _: &mut dyn FnMut(&[u8])) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn end(&mut self, _facts: LayerFacts) -> Result<Sha256> {
        let part = self.open.take().unwrap();
        let digest = Sha256::of(&part.1);
        self.ended.push(part);
        Ok(digest)
    }
}

/// A tar with these entries; a content of `->X` is a symbolic link to X.
fn tar_of(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        if let Some(target) = content.strip_prefix(b"->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder
                .append_link(&mut header, name, std::str::from_utf8(target).unwrap())
                .unwrap();
        } else {
            header.set_size(content.len() as u64);
            builder
                .append_data(&mut header, name, &content[..])
                .unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn layer(name: &str) -> Vec<u8> {
    tar_of(&[(name, vec![7; 3000])])
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("sha256:{}", Sha256::of(layer)))
        .collect();
    serde_json::json!({
        "os": "linux", "architecture": "amd64",
        "config": {"Env": ["CUDA_VERSION=12.4.1"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    })
    .to_string()
    .into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn wish() -> ImageWish {
    ImageWish {
        reference: "test/image:1".into(),
        platform: "linux/amd64".into(),
    }
}

fn read(archive: &[u8]) -> Result<(Image, Parts)> {
    let mut parts = Parts::default();
    stream(archive, None, &wish(), &mut parts).map(|image| (image, parts))
}

/// Two layers as `docker save` 20.10 writes them, the third a link to the first.
fn old_docker() -> (Vec<u8>, Vec<Vec<u8>>) {
    let (ray, vllm) = (
        layer("usr/bin/ray"),
        layer("usr/lib/vllm-0.6.4.post1.dist-info/METADATA"),
    );
    let layers = vec![ray.clone(), vllm.clone(), ray.clone()];
    let config = config(&layers);
    let name = format!("{}.json", Sha256::of(&config));
    let manifest = format!(
        r#"[{{"Config":"{name}","RepoTags":["test/image:1"],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}}]"#
    );
    let archive = tar_of(&[
        ("a/VERSION", b"1.0".to_vec()),
        ("a/layer.tar", ray),
        ("b/layer.tar", vllm),
        ("c/layer.tar", b"->../a/layer.tar".to_vec()),
        (name.as_str(), config),
        ("manifest.json", manifest.into_bytes()),
    ]);
    (archive, layers)
}

/// The same layers as an OCI layout with compressed layers, as the containerd store saves them.
fn oci(compress: fn(&[u8]) -> Vec<u8>) -> (Vec<u8>, Vec<Vec<u8>>) {
    let layers = vec![layer("usr/bin/ray"), layer("etc/x")];
    let stored: Vec<Vec<u8>> = layers.iter().map(|layer| compress(layer)).collect();
    let config = config(&layers);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Sha256::of(bytes));
    let descriptor = |bytes: &[u8]| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": format!("sha256:{}", Sha256::of(bytes)),
            "size": bytes.len(),
        })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": descriptor(&config),
        "layers": stored.iter().map(|bytes| descriptor(bytes)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor(&manifest)]})
        .to_string()
        .into_bytes();
    let mut entries: Vec<(String, Vec<u8>)> = stored
        .into_iter()
        .chain([config, manifest])
        .map(|bytes| (blob(&bytes), bytes))
        .collect();
    entries.sort();
    entries.push(("index.json".into(), index));
    let entries: Vec<(&str, Vec<u8>)> = entries
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.clone()))
        .collect();
    (tar_of(&entries), layers)
}

#[test]
fn docker_2010_archives_are_read_in_one_pass() {
    let (archive, layers) = old_docker();
    let (image, parts) = read(&archive).unwrap();
    let ids: Vec<Sha256> = layers.iter().map(|layer| Sha256::of(layer)).collect();
    assert_eq!(image.layers, ids);
    assert_eq!(image.facts.vllm.as_deref(), Some("0.6.4.post1"));
    assert!(image.facts.ray.is_some());
    assert_eq!(image.facts.cuda.as_deref(), Some("12.4.1"));
    let contents: Vec<&Vec<u8>> = parts.ended.iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(contents[..2], [&layers[0], &layers[1]]);
    assert_eq!(Sha256::of(contents[2]), image.config);
    assert_eq!(contents.len(), 3);
}

#[test]
fn layers_of_oci_archives_come_uncompressed() {
    for compress in [
        gzip,
        |bytes: &[u8]| bytes.to_vec(),
        |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap(),
    ] {
        let (archive, layers) = oci(compress);
        let (image, parts) = read(&archive).unwrap();
        let ids: Vec<Sha256> = layers.iter().map(|layer| Sha256::of(layer)).collect();
        assert_eq!(image.layers, ids);
        assert_eq!(parts.ended.len(), 3);
        assert!(
            layers
                .iter()
                .all(|layer| parts.ended.iter().any(|(_, bytes)| bytes == layer))
        );
    }
}

#[test]
fn of_several_images_in_a_file_only_the_wished_one_is_taken() {
    let (one, other) = (layer("etc/one"), layer("etc/other"));
    let (config_one, config_other) = (
        config(std::slice::from_ref(&one)),
        config(std::slice::from_ref(&other)),
    );
    let manifest = br#"[{"Config":"o.json","RepoTags":["test/other:1"],"Layers":["o/layer.tar"]},
        {"Config":"i.json","RepoTags":["test/image:1"],"Layers":["i/layer.tar"]}]"#;
    let archive = tar_of(&[
        ("o/layer.tar", other),
        ("i/layer.tar", one.clone()),
        ("o.json", config_other),
        ("i.json", config_one),
        ("manifest.json", manifest.to_vec()),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.tar");
    std::fs::write(&path, archive).unwrap();
    let mut parts = Parts::default();
    let image = TarSource::new(&path, wish())
        .unwrap()
        .stream(&mut parts)
        .unwrap();
    assert_eq!(image.layers, [Sha256::of(&one)]);
    assert_eq!(parts.ended.len(), 2);
}

#[test]
fn what_does_not_fit_together_is_damaged() {
    let (archive, _) = old_docker();
    let spoiled = |from: &[u8], to: &[u8]| {
        let mut bytes = archive.clone();
        let at = bytes
            .windows(from.len())
            .rposition(|window| window == from)
            .unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        read(&bytes)
            .err()
            .map(|error| (error.exit_code(), error.to_string()))
    };
    let (code, text) = spoiled(&[7; 16], &[8; 16]).unwrap();
    assert!(code == 10 && text.contains("layer"), "{text}");
    let (code, text) = spoiled(b"b/layer.tar", b"x/layer.tar").unwrap();
    assert!(
        code == 10 && text.contains("lacks layer x/layer.tar"),
        "{text}"
    );
    assert_eq!(
        read(&archive[..archive.len() / 2])
            .err()
            .unwrap()
            .exit_code(),
        10
    );
    assert_eq!(read(b"not a tar at all").err().unwrap().exit_code(), 10);
    assert!(
        read(&tar_of(&[("x", b"y".to_vec())]))
            .err()
            .unwrap()
            .to_string()
            .contains("no image")
    );
}

#[test]
fn another_platform_is_refused() {
    let (archive, _) = old_docker();
    let wish = ImageWish {
        platform: "linux/arm64".into(),
        ..wish()
    };
    let error = stream(&archive[..], None, &wish, &mut Parts::default()).unwrap_err();
    assert!(
        error.exit_code() == 2 && error.to_string().contains("linux/amd64"),
        "{error}"
    );
}

#[test]
fn the_hybrid_archive_reads_back_as_the_same_image() {
    let (archive, _) = oci(gzip);
    let (mut image, parts) = read(&archive).unwrap();
    image.files = parts
        .ended
        .iter()
        .map(|(_, bytes)| crate::bundle::manifest::FileEntry {
            path: crate::image::hybrid::blob_path(Sha256::of(bytes))
                .parse()
                .unwrap(),
            size: bytes.len() as u64,
            sha256: Sha256::of(bytes),
            chunks: Vec::new(),
        })
        .collect();
    let open = |file: &crate::bundle::manifest::FileEntry| {
        let (_, bytes) = parts
            .ended
            .iter()
            .find(|(_, bytes)| Sha256::of(bytes) == file.sha256)
            .unwrap();
        Ok(&bytes[..])
    };
    let mut hybrid = Vec::new();
    crate::image::hybrid::write_archive(&image, open, &mut hybrid).unwrap();
    let (again, _) = read(&hybrid).unwrap();
    assert_eq!((again.config, &again.layers), (image.config, &image.layers));
    image.files.pop();
    let error = crate::image::hybrid::write_archive(&image, open, Vec::new()).unwrap_err();
    assert!(error.to_string().contains("lacks a part"));
}
