//! `--joblog`: a row for each try of each line, as they end.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use offshoot::TaskError;

use super::input::Line;
use super::order::Report;

/// The columns. The command comes last because it may hold tabs of its own.
const HEADER: &str = "line\ttry\tworker\thost\tstart\tseconds\texit\tsignal\tcommand\n";
/// Where there is nothing to say.
const NONE: &str = "-";

pub(crate) struct Joblog {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Joblog {
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let refused = |error| format!("the joblog `{}` cannot be written: {error}", path.display());
        let mut file = BufWriter::new(File::create(path).map_err(refused)?);
        file.write_all(HEADER.as_bytes()).and_then(|()| file.flush()).map_err(refused)?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    pub(crate) fn note_report(&mut self, line: &Line, report: &Report) -> Result<(), String> {
        for (index, one) in report.tries.iter().enumerate() {
            let code = one.end.code().map(|code| code.to_string());
            let signal = one.end.signal();
            let row = format!(
                "{}\t{}\t{}\t{}\t{:.3}\t{:.3}\t{}\t{}\t",
                line.number,
                index + 1,
                report.worker,
                report.host,
                one.start.as_secs_f64(),
                one.took.as_secs_f64(),
                code.as_deref().unwrap_or(NONE),
                signal.as_deref().unwrap_or(NONE),
            );
            self.write(&row, line)?;
        }
        Ok(())
    }

    /// A line that has no report: its worker was lost, as a rule.
    pub(crate) fn note_error(&mut self, line: &Line, error: &TaskError) -> Result<(), String> {
        let worker = error.worker().map_or(NONE.to_owned(), |worker| worker.number().to_string());
        let number = line.number;
        self.write(&format!("{number}\t{NONE}\t{worker}\t{NONE}\t{NONE}\t{NONE}\t{NONE}\t{NONE}\t"), line)
    }

    fn write(&mut self, row: &str, line: &Line) -> Result<(), String> {
        let mut write = || -> io::Result<()> {
            self.file.write_all(row.as_bytes())?;
            self.file.write_all(&line.command)?;
            self.file.write_all(b"\n")?;
            // A row is there as soon as its line has ended, for who follows the file.
            self.file.flush()
        };
        write().map_err(|error| format!("the joblog `{}` cannot be written: {error}", self.path.display()))
    }
}
