//! What the parameter files of an Open MPI say, which an environment variable would overrule.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::installation::Installation;

/// The value of a list of components by which these are excluded too. `None` where nothing is to be said: the list names those
/// that are to be used, or it is not known which files there are.
pub(super) fn exclude(name: &str, components: &[&str], installation: &Installation) -> Option<String> {
    // Then the files are others.
    if env::var_os("OMPI_MCA_mca_base_param_files").is_some() {
        return None;
    }
    let of_installation = fs::read_to_string(file_of_installation(installation)?).ok()?;
    let of_user = env::home_dir().map(|home| home.join(".openmpi/mca-params.conf"));
    let of_user = of_user.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    let list = value(&of_user, name).or_else(|| value(&of_installation, name));
    excluding(list.unwrap_or_default(), components)
}

/// `PREFIX/etc`, or where distributions have what is to be configured.
fn file_of_installation(installation: &Installation) -> Option<PathBuf> {
    const NAME: &str = "openmpi-mca-params.conf";
    let prefix = installation.launcher.as_deref()?.parent()?.parent()?;
    let of_distribution = (prefix == Path::new("/usr")).then(|| Path::new("/etc/openmpi").join(NAME));
    std::iter::once(prefix.join("etc").join(NAME)).chain(of_distribution).find(|file| file.is_file())
}

/// The last one counts.
fn value<'a>(file: &'a str, name: &str) -> Option<&'a str> {
    let lines = file.lines().map(|line| line.split('#').next().unwrap_or_default());
    let values = lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value.trim()));
    values.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches(['"', '\''])).next_back()
}

/// `^a,b` excludes, `a,b` names the only ones.
fn excluding(list: &str, components: &[&str]) -> Option<String> {
    let excluded = if list.is_empty() { Some("") } else { list.strip_prefix('^') }?;
    let excluded = excluded.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<&str> = excluded.filter(|name| !components.contains(name)).collect();
    Some(format!("^{}", [names.as_slice(), components].concat().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_excluded_components_grows() {
        assert_eq!(excluding("", &["psm", "psm2"]).as_deref(), Some("^psm,psm2"));
        assert_eq!(excluding("^ofi", &["psm", "psm2"]).as_deref(), Some("^ofi,psm,psm2"));
        assert_eq!(excluding("^psm, ofi", &["psm", "psm2"]).as_deref(), Some("^ofi,psm,psm2"));
        assert_eq!(excluding("psm2", &["psm", "psm2"]), None, "whoever wants just that has it");
    }

    #[test]
    fn a_parameter_file_is_understood() {
        let file = "# mtl = a\nmtl=^ofi\nbtl = ^uct,openib,ofi\nmtl_base_verbose = 3\nmtl =  \"^x\" # and why\nnonsense\n";
        assert_eq!(value(file, "mtl"), Some("^x"));
        assert_eq!(value(file, "btl"), Some("^uct,openib,ofi"));
        assert_eq!(value(file, "pml"), None);
    }
}
