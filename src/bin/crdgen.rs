//! Writes the custom resource definitions (`make crds`), one file a kind: as they are into one directory, and as the chart
//! has them into another; the reference of their fields into a file, and that of the reasons into
//! another.

use std::{fs, path::Path};

use anyhow::Context;
use pallet_api::{crds, reason, reference};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("usage: crdgen DIRECTORY CHART_DIRECTORY REFERENCE REASONS");
    let (plain, chart, page, reasons) = (argument()?, argument()?, argument()?, argument()?);
    write(Path::new(&plain), crds::files()?)?;
    write(Path::new(&chart), crds::chart_files()?)?;
    fs::write(&page, reference::page(&crds::all())).with_context(|| format!("could not write {page}"))?;
    fs::write(&reasons, reason::page()).with_context(|| format!("could not write {reasons}"))
}

fn write(directory: &Path, files: Vec<(String, String)>) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    for (name, yaml) in files {
        let path = directory.join(name);
        fs::write(&path, yaml).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}
