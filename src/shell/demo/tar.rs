//! As much of the ustar format as an image needs: directories and files that anybody may read and run, the same bytes
//! for the same contents.

const BLOCK: usize = 512;
/// What a header has room for.
const MAX_NAME: usize = 100;

#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn dir(&mut self, name: &str) -> anyhow::Result<()> {
        self.header(&format!("{name}/"), 0, b'5')
    }

    pub fn file(&mut self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        self.header(name, content.len(), b'0')?;
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }

    fn header(&mut self, name: &str, size: usize, kind: u8) -> anyhow::Result<()> {
        anyhow::ensure!(name.len() < MAX_NAME, "{name}: too long a name for an archive");
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"00000000000\0");
        // The checksum counts its own field as spaces.
        put(148, b"        ");
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn tar_reads_what_was_written() {
        let mut tar = Tar::default();
        tar.dir("lib").unwrap();
        tar.file("lib/a", b"hello").unwrap();
        tar.file("b", &[7; 1024]).unwrap();
        let bytes = tar.end();
        assert_eq!(bytes.len(), 512 * (1 + 2 + 3 + 2));
        let Ok(mut reader) =
            Command::new("tar").args(["-xOf", "-", "lib/a"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        else {
            eprintln!("SKIPPED: there is no tar here that could read it");
            return;
        };
        reader.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = reader.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"hello");
        assert!(Tar::default().file(&"x".repeat(100), b"").is_err());
    }
}
