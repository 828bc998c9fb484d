//! `tachikoma config`: check a file, show what would hold, write a file to begin with.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Failed, ServeArgs};
use crate::print;
use crate::server::check_cache;

/// The file that `config init` writes: every setting with its default, commented out.
pub(crate) const TEMPLATE: &str = include_str!("template.toml");

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether a server would start with these settings
    Check(ServeArgs),
    /// Print the settings that would hold, without secrets
    Show(ServeArgs),
    /// Write a file with every setting and its default
    Init(InitArgs),
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Where to write it; `-` is standard output
    #[arg(default_value = "tachikoma.toml")]
    file: PathBuf,
    /// Overwrite the file if there is one
    #[arg(long)]
    force: bool,
}

pub(super) fn run(command: ConfigCommand) -> Result<(), Failed> {
    match command {
        ConfigCommand::Check(args) => {
            check_cache(&args.resolve()?)?;
            print("ok\n");
        }
        ConfigCommand::Show(args) => print(&args.resolve()?.to_toml()),
        ConfigCommand::Init(args) => init(&args)?,
    }
    Ok(())
}

fn init(args: &InitArgs) -> anyhow::Result<()> {
    if args.file.as_os_str() == "-" {
        print(TEMPLATE);
        return Ok(());
    }
    let mut options = fs::OpenOptions::new();
    // `create_new` refuses an existing file even when it appears between a look and the writing.
    options.write(true).create(true).truncate(args.force).create_new(!args.force);
    let file = options.open(&args.file).and_then(|mut file| file.write_all(TEMPLATE.as_bytes()));
    match file {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            anyhow::bail!("{} is there already; --force overwrites it", args.file.display())
        }
        other => {
            other.with_context(|| format!("{} cannot be written", args.file.display()))?;
            print(&format!("wrote {}\n", args.file.display()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TEMPLATE;
    use crate::config::{Config, Settings, file};

    #[test]
    fn the_template_holds_every_setting_with_its_default() {
        let uncommented: Vec<&str> = TEMPLATE
            .lines()
            .map(|line| {
                let setting = line.strip_prefix("# ").filter(|text| text.contains(" = "));
                setting.unwrap_or(line)
            })
            .collect();
        let uncommented = uncommented.join("\n");
        let settings = file::parse(&uncommented, "template").expect("the template parses");
        // Files that do not exist are named in it, so only the defaults are compared.
        let settings = Settings {
            admin_token_file: None,
            admin_read_token_file: None,
            upstream: None,
            tls: crate::config::TlsSettings::default(),
            api: Some(true),
            ..settings
        };
        let config = Config::resolve(settings, Settings::default(), |_| None).expect("it holds");
        let defaults = Config { api: true, ..Config::default() };
        assert_eq!(config.to_toml(), defaults.to_toml());
        for key in toml::from_str::<toml::Table>(&defaults.to_toml()).expect("a table").keys() {
            assert!(TEMPLATE.contains(key), "{key} is not in the template");
        }
    }

    #[test]
    fn the_template_as_it_is_written_parses() {
        assert!(file::parse(TEMPLATE, "template").is_ok());
    }
}
