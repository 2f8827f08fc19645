//! Writes the custom resource definitions into a directory (`make crds`), one file a kind.

use std::{fs, path::PathBuf};

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let directory = PathBuf::from(std::env::args().nth(1).context("usage: crdgen DIRECTORY")?);
    fs::create_dir_all(&directory)?;
    for (name, yaml) in pallet_operator::crds::files()? {
        let path = directory.join(name);
        fs::write(&path, yaml).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}
