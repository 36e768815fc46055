//! What is to be sent, to whom and when.
//!
//! Reads one line of JSON, then the messages' bytes, then the times: 64-bit floats, little-endian, seconds from the
//! start, ascending. Opens nothing.

use std::io::{BufRead, Read};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

/// A longer run belongs into several.
const TIMES_MAX: usize = 50_000_000;
const MESSAGES_MAX_BYTES: usize = 256 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// Host and port.
    address: SocketAddr,
    /// How long each message is.
    message_bytes: Vec<usize>,
    /// How many times follow.
    times: usize,
    /// How long after the last time an answer is waited for.
    patience_s: f64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) address: SocketAddr,
    /// Whole HTTP/1.1 requests, sent in turn. At least one.
    pub(crate) messages: Vec<Vec<u8>>,
    /// When each leaves, from the start.
    pub(crate) due: Vec<Duration>,
    pub(crate) patience: Duration,
}

impl Job {
    /// The whole of it; the fault in words where it makes no sense.
    pub(crate) fn read(input: &mut impl BufRead) -> Result<Job, String> {
        let mut line = String::new();
        input.read_line(&mut line).map_err(|fault| format!("the job can't be read: {fault}"))?;
        let head: Head = serde_json::from_str(&line)
            .map_err(|fault| format!("the job's first line is no job: {fault}"))?;
        let bytes = head.message_bytes.iter().try_fold(0usize, |sum, bytes| sum.checked_add(*bytes));
        if head.message_bytes.is_empty() || bytes.is_none_or(|bytes| bytes > MESSAGES_MAX_BYTES) {
            return Err(format!("a job has messages of 1 to {MESSAGES_MAX_BYTES} bytes together"));
        }
        if head.times > TIMES_MAX {
            return Err(format!("a job has at most {TIMES_MAX} times, not {}; make several", head.times));
        }
        let patience = Duration::try_from_secs_f64(head.patience_s)
            .map_err(|_| format!("patience_s is {}; it must be at least 0", head.patience_s))?;
        let messages =
            head.message_bytes.iter().map(|bytes| exactly(input, *bytes)).collect::<Result<_, _>>()?;
        let times = exactly(input, head.times * 8)?;
        let mut due = Vec::with_capacity(head.times);
        for (at, time) in times.chunks_exact(8).enumerate() {
            let time = f64::from_le_bytes(time.try_into().unwrap_or_default());
            let time = Duration::try_from_secs_f64(time).ok();
            match time.filter(|time| due.last().is_none_or(|last| last <= time)) {
                Some(time) => due.push(time),
                None => return Err(format!("time {at} is below 0 or below the one before")),
            }
        }
        Ok(Job { address: head.address, messages, due, patience })
    }
}

fn exactly(input: &mut impl Read, bytes: usize) -> Result<Vec<u8>, String> {
    let mut read = vec![0; bytes];
    input.read_exact(&mut read).map_err(|fault| format!("the job ends too soon: {fault}"))?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(head: &str, rest: &[u8]) -> Result<Job, String> {
        Job::read(&mut [head.as_bytes(), b"\n", rest].concat().as_slice())
    }

    fn times(times: &[f64]) -> Vec<u8> {
        times.iter().flat_map(|time| time.to_le_bytes()).collect()
    }

    #[test]
    fn messages_and_times_follow_the_first_line() {
        let head = r#"{"address": "127.0.0.1:80", "message_bytes": [2, 3], "times": 2, "patience_s": 1.5}"#;
        let job = job(head, &[b"abcde".as_slice(), &times(&[0.25, 0.5])].concat()).expect("a job");
        assert_eq!(job.messages, [b"ab".to_vec(), b"cde".to_vec()]);
        assert_eq!(job.due, [Duration::from_millis(250), Duration::from_millis(500)]);
        assert_eq!(job.patience, Duration::from_millis(1500));
    }

    #[test]
    fn what_is_no_job_is_refused_in_words() {
        let head = |times: usize| {
            format!(
                r#"{{"address": "127.0.0.1:80", "message_bytes": [1], "times": {times}, "patience_s": 1}}"#
            )
        };
        let descending = [b"a".as_slice(), &times(&[2.0, 1.0])].concat();
        let endless = [b"a".as_slice(), &times(&[f64::NAN])].concat();
        for (head, rest, words) in [
            ("{}".to_owned(), Vec::new(), "no job"),
            (head(1), b"a".to_vec(), "ends too soon"),
            (head(2), descending, "time 1 is below"),
            (head(1), endless, "time 0 is below 0"),
            (head(usize::MAX), Vec::new(), "at most"),
        ] {
            let fault = job(&head, &rest).expect_err("nonsense");
            assert!(fault.contains(words), "{fault}");
        }
    }
}
