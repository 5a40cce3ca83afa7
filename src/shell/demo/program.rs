//! The running binary with everything it needs to run elsewhere: nothing if it is static, else the loader and the
//! libraries that the loader finds for it.

use super::tar::Tar;
use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SELF: &str = "/proc/self/exe";
const LIB: &str = "lib";

pub struct Program {
    binary: Vec<u8>,
    /// Their file names, the loader's first; empty for a static binary.
    libraries: Vec<(String, Vec<u8>)>,
}

impl Program {
    pub fn of_this_process() -> anyhow::Result<Self> {
        let binary = std::fs::read(SELF).with_context(|| SELF)?;
        let paths = if is_static()? { Vec::new() } else { libraries()? };
        let mut libraries = Vec::with_capacity(paths.len());
        for (name, path) in paths {
            libraries.push((name, std::fs::read(&path).with_context(|| path.display().to_string())?));
        }
        Ok(Self { binary, libraries })
    }

    /// What starts it from the layer. The loader is called by name and told where to look, so that it doesn't matter
    /// where the binary expects it.
    pub fn command(&self) -> Vec<String> {
        let binary = "/peer".to_owned();
        match self.libraries.first() {
            None => vec![binary],
            Some((loader, _)) => {
                vec![format!("/{LIB}/{loader}"), "--library-path".to_owned(), format!("/{LIB}"), binary]
            }
        }
    }

    /// A file system with nothing else in it.
    pub fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut tar = Tar::default();
        tar.file("peer", &self.binary)?;
        tar.dir(LIB)?;
        for (name, content) in &self.libraries {
            tar.file(&format!("{LIB}/{name}"), content)?;
        }
        Ok(tar.end())
    }

    #[cfg(test)]
    pub fn for_test() -> Self {
        Self { binary: b"binary".to_vec(), libraries: vec![("ld.so".to_owned(), b"loader".to_vec())] }
    }
}

/// Nothing but the binary itself is mapped as code.
fn is_static() -> anyhow::Result<bool> {
    let own = std::fs::read_link(SELF).with_context(|| SELF)?;
    let maps = std::fs::read_to_string("/proc/self/maps").context("/proc/self/maps")?;
    let code = maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|rights| rights.contains('x')));
    let mut files = code.filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    Ok(files.all(|file| file == own))
}

/// As `ldd` asks: the loader says what it would load, and runs nothing.
fn libraries() -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut ask = Command::new(SELF);
    ask.arg("--version").env("LD_TRACE_LOADED_OBJECTS", "1").stdin(Stdio::null());
    let answer = ask.output().context("asking the loader for this binary's libraries")?;
    parse(&String::from_utf8_lossy(&answer.stdout))
}

/// Lines as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)` for the loader, and
/// `linux-vdso.so.1 (0x…)` for the kernel's own, which is no file.
fn parse(said: &str) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let (mut loader, mut others) = (None, Vec::new());
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, "=>", path, ..] => {
                ensure!(path.starts_with('/'), "this binary's library {name} can't be found");
                others.push(((*name).to_owned(), PathBuf::from(path)));
            }
            [path, ..] if path.starts_with('/') => {
                let name = Path::new(path).file_name().context("a loader without a name")?;
                loader = Some((name.to_string_lossy().into_owned(), PathBuf::from(path)));
            }
            _ => {}
        }
    }
    let Some(loader) = loader else { bail!("this binary's libraries can't be found out") };
    Ok(std::iter::once(loader).chain(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_words_are_read() {
        let said = "\tlinux-vdso.so.1 (0x0000)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x1)\n\t/lib64/ld-linux.so.2 (0x2)\n";
        let found = parse(said).unwrap();
        assert_eq!(found[0], ("ld-linux.so.2".to_owned(), PathBuf::from("/lib64/ld-linux.so.2")));
        assert_eq!(found[1], ("libc.so.6".to_owned(), PathBuf::from("/lib/x/libc.so.6")));
        assert!(parse("peer 0.1.0\n").is_err());
        assert!(parse("\tlibx.so.1 => not found\n").unwrap_err().to_string().contains("libx.so.1"));
    }

    #[test]
    fn the_command_goes_through_the_loader_only_where_there_is_one() {
        let mut program = Program::for_test();
        assert_eq!(program.command(), ["/lib/ld.so", "--library-path", "/lib", "/peer"]);
        program.libraries.clear();
        assert_eq!(program.command(), ["/peer"]);
    }
}
