//! HTTP/1.1 by hand, so that the tests see and send exactly what is on the wire.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The message of an error of this status.
    pub(crate) fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.json()["error"].as_str().expect("errors have a message").to_owned()
    }
}

/// One connection.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) async fn connect(to: SocketAddr) -> Client {
        Client(TcpStream::connect(to).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Sends a request that has a body.
    pub(crate) async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&request("POST", path, headers, body)).await;
        self.answer().await.expect("an answer")
    }

    /// Reads one answer; `None` where the server closed instead.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        self.answer_to("POST").await
    }

    pub(crate) async fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.0.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) if head.is_empty() => return None,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
            }
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if method != "HEAD" {
            answer.body.resize(length, 0);
            self.0.read_exact(&mut answer.body).await.unwrap();
        }
        Some(answer)
    }

    /// Whether the server has closed, or does so now.
    pub(crate) async fn is_closed(&mut self) -> bool {
        !matches!(self.0.read(&mut [0]).await, Ok(read) if read > 0)
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

pub(crate) async fn ask(to: SocketAddr, method: &str, path: &str) -> Answer {
    let mut client = Client::connect(to).await;
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await;
    client.answer_to(method).await.expect("an answer")
}

pub(crate) async fn get(to: SocketAddr, path: &str) -> Answer {
    ask(to, "GET", path).await
}

pub(crate) async fn post(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Client::connect(to).await.post(path, headers, body).await
}

/// The body of an inference over one row.
pub(crate) fn row(first: f32, second: f32) -> Vec<u8> {
    let inputs =
        serde_json::json!([{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [first, second]}]);
    serde_json::json!({"id": "seven", "inputs": inputs}).to_string().into_bytes()
}

pub(crate) const INFER: &str = "/v2/models/double/infer";
