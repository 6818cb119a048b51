//! From a spec to a bundle: sources, the ordered pipeline, resume.
