//! The program against servers that answer, refuse, hang up and are not there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

/// Serves every connection on a thread of its own, with what `answer` makes of a request's body; `None` hangs up.
fn server(answer: fn(&[u8]) -> Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || serve(socket, answer));
        }
    });
    address
}

fn serve(socket: TcpStream, answer: fn(&[u8]) -> Option<&'static str>) -> Option<()> {
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        // In two pieces: an answer may come so.
        let (first, second) = answer(&body)?.split_at(9);
        (&socket).write_all(first.as_bytes()).ok()?;
        (&socket).write_all(second.as_bytes()).ok()?;
    }
}

fn message(body: &[u8]) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn load(address: SocketAddr, messages: &[Vec<u8>], due: &[f64], patience_s: f64) -> Value {
    let head = json!({
        "address": address,
        "message_bytes": messages.iter().map(Vec::len).collect::<Vec<_>>(),
        "times": due.len(),
        "patience_s": patience_s,
    });
    let mut program = Command::new(env!("CARGO_BIN_EXE_inferd-openloop"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("built");
    let mut input = program.stdin.take().expect("piped");
    writeln!(input, "{head}").expect("reads");
    messages.iter().for_each(|message| input.write_all(message).expect("reads"));
    due.iter().for_each(|time| input.write_all(&time.to_le_bytes()).expect("reads"));
    drop(input);
    let ended = program.wait_with_output().expect("ends by itself");
    assert!(ended.status.success());
    serde_json::from_slice(&ended.stdout).expect("one JSON object")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn every_request_is_sent_answered_and_counted_from_its_time() {
    let due: Vec<f64> = (0..400).map(|at| f64::from(at) * 0.001).collect();
    let seen = load(server(|_| Some(OK)), &[message(b"a")], &due, 10.0);
    let latencies = seen["latencies_s"].as_array().expect("a list");
    assert_eq!((latencies.len(), &seen["refused"], &seen["errors"]), (400, &json!(0), &json!(0)));
    assert!(latencies.iter().all(|one| one.as_f64().is_some_and(|one| one > 0.0)));
    let late = &seen["lateness_s"];
    assert!(late["p50"].as_f64() <= late["p99"].as_f64() && late["p99"].as_f64() <= late["most"].as_f64());
    assert!(seen["own_request_s"].as_f64() > Some(0.0));
}

#[test]
fn messages_go_in_turn_and_refusals_are_no_errors() {
    let refuse = |body: &[u8]| match body {
        b"a" => Some(OK),
        b"b" => Some("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
        _ => Some("HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    };
    let messages = [message(b"a"), message(b"b"), message(b"c")];
    let seen = load(server(refuse), &messages, &[0.0; 30], 10.0);
    assert_eq!(seen["latencies_s"].as_array().map(Vec::len), Some(10));
    assert_eq!((&seen["refused"], &seen["errors"]), (&json!(10), &json!(10)));
    assert_eq!(seen["first_error"], "answered 500");
}

#[test]
fn a_burst_beyond_what_a_socket_holds_leaves_whole() {
    let large = vec![b'x'; 4 << 20];
    let whole = |body: &[u8]| (body.len() == 4 << 20).then_some(OK);
    let seen = load(server(whole), &[message(&large)], &[0.0; 8], 20.0);
    assert_eq!(seen["latencies_s"].as_array().map(Vec::len), Some(8));
}

#[test]
fn a_server_that_hangs_up_or_is_not_there_is_told_of() {
    let seen = load(server(|_| None), &[message(b"a")], &[0.0, 0.01], 10.0);
    assert_eq!(
        (&seen["errors"], &seen["first_error"]),
        (&json!(2), &json!("the server closed the connection"))
    );
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let seen = load(nobody, &[message(b"a")], &[0.0, 0.01], 10.0);
    assert_eq!(seen["errors"], 2);
}

#[test]
fn who_never_answers_is_not_waited_for_longer_than_said() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let seen = load(silent.local_addr().expect("bound"), &[message(b"a")], &[0.0; 3], 0.2);
    assert_eq!((&seen["errors"], &seen["first_error"]), (&json!(3), &json!("not answered in time")));
}
