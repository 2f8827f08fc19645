//! Pure: what the agent says, out of a stream of bytes.
//!
//! A reply is a line led by the session's nonce, with payloads behind it that are counted in bytes or in lines. Whatever else comes is noise: it is kept,
//! bounded, for messages, and can be nothing but noise, since no script knows the nonce.

use sha2::{Digest as _, Sha256};

use crate::{
    api::group_node::{ActionResult, Effect},
    group::resolve::MOST_ACTIONS,
    phase::hex,
};

/// One reply of the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// The node is the one that was meant.
    Hello {
        /// What its file system is known by.
        witness: String,
    },
    /// A run that the journal holds, oldest first.
    Past(Past),
    /// The journal has been told.
    Ready,
    /// The built-in facts.
    Facts(Vec<u8>),
    /// The run was started.
    Started(String),
    /// The run was there already and goes on.
    Attached(String),
    /// There is no such run, or it never got to its script.
    Absent(String),
    /// Another run holds the node.
    Busy(String),
    /// A run ended.
    Ended(Box<Ended>),
    /// A sign of life.
    Beat,
    /// The agent will not go on.
    Refused {
        /// One word.
        reason: String,
        /// For people.
        message: String,
    },
}

impl Frame {
    /// The frame for a log: without facts, which may hold anything.
    pub fn summary(&self) -> String {
        match self {
            Frame::Facts(facts) => format!("Facts({} bytes)", facts.len()),
            Frame::Ended(ended) => {
                let facts = ended.facts.len();
                let rest = Ended { facts: Vec::new(), ..(**ended).clone() };
                format!("{:?}, {facts} bytes of facts", Frame::Ended(Box::new(rest)))
            }
            other => format!("{other:?}"),
        }
    }
}

/// A run that the journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The run.
    pub run_id: String,
    /// Its phase.
    pub phase: String,
    /// Whether its script still runs.
    pub active: bool,
    /// Whether its script was ever started.
    pub started: bool,
}

/// How a run ended, by the node's journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The run.
    pub run_id: String,
    /// Its phase.
    pub phase: String,
    /// Which attempt it was.
    pub attempt: u32,
    /// What was run.
    pub digest: String,
    /// How it ended.
    pub verdict: Verdict,
    /// When it began and ended, in seconds since 1970: by the clock of the operator that started it, and what passed on the
    /// node since.
    pub times: Option<(i64, i64)>,
    /// What tells the secrets that it was given from others; `-` where it was given none.
    pub seal: String,
    /// The place of its first action in the phase.
    pub from: u32,
    /// How many bytes were printed in all.
    pub output_bytes: i64,
    /// The last of them.
    pub output: String,
    /// What the actions did.
    pub actions: Vec<ActionResult>,
    /// What settings gathered.
    pub facts: Vec<u8>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With this exit code.
    Exit(i32),
    /// At its deadline, by force.
    TimedOut,
    /// On demand, by force.
    Cancelled,
    /// Without a word: it was killed together with what watched over it.
    Died,
}

/// The longest line that is understood, and the most noise that is kept, in bytes.
const LINE_LIMIT: usize = 4096;
/// The largest payload that is taken in. The agent's own bounds lie far below.
const PAYLOAD_LIMIT: usize = 2 << 20;

/// Takes bytes in and gives frames out.
#[derive(Debug)]
pub struct Decoder {
    prefix: String,
    buffer: Vec<u8>,
    /// A header whose payloads are not all there yet.
    open: Option<(Header, Wanted)>,
    noise: Vec<u8>,
    skipping: bool,
}

#[derive(Debug)]
enum Header {
    Facts,
    /// The lengths are those of the output and of the facts.
    Ended {
        ended: Box<Ended>,
        sum: String,
        lengths: [usize; 2],
    },
}

/// What follows a header: so many bytes, and so many lines behind them.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    bytes: usize,
    lines: usize,
}

impl Wanted {
    /// How long it is, where it is all there.
    fn length(self, buffer: &[u8]) -> Option<usize> {
        let behind = buffer.get(self.bytes..)?;
        let Some(last) = self.lines.checked_sub(1) else { return Some(self.bytes) };
        let ends = behind.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        ends.map(|(at, _)| self.bytes + at + 1).nth(last)
    }
}

/// The stream does not keep to the protocol: the session must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A reply that cannot be read.
    #[error("the agent's reply cannot be read: {0:?}")]
    Malformed(String),
    /// A payload larger than any agent sends.
    #[error("the agent announced a payload of {0} bytes")]
    TooLarge(usize),
    /// The output does not match its hash.
    #[error("the output of run {0} was damaged on its way")]
    Damaged(String),
}

impl Decoder {
    /// A decoder for the session that has this nonce.
    pub fn new(nonce: &str) -> Self {
        Self { prefix: format!("{nonce} "), buffer: Vec::new(), open: None, noise: Vec::new(), skipping: false }
    }

    /// The last of what came and was no reply.
    pub fn noise(&self) -> String {
        String::from_utf8_lossy(&self.noise).trim().to_owned()
    }

    /// Takes bytes in, and gives the frames that they complete.
    ///
    /// # Errors
    /// See [`Error`]; the decoder is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, Error> {
        self.buffer.extend_from_slice(bytes);
        let mut frames = Vec::new();
        loop {
            if let Some((header, wanted)) = self.open.take() {
                match wanted.length(&self.buffer) {
                    Some(length) => {
                        let payload: Vec<u8> = self.buffer.drain(..length).collect();
                        frames.push(complete(header, payload)?);
                    }
                    None if self.buffer.len() > PAYLOAD_LIMIT => return Err(Error::TooLarge(self.buffer.len())),
                    None => {
                        self.open = Some((header, wanted));
                        return Ok(frames);
                    }
                }
                continue;
            }
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
                if self.buffer.len() > LINE_LIMIT {
                    // No reply is that long: noise without newlines.
                    let noise = std::mem::take(&mut self.buffer);
                    self.keep_noise(&noise);
                    self.skipping = true;
                }
                return Ok(frames);
            };
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            if std::mem::take(&mut self.skipping) {
                self.keep_noise(&line);
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            match text.trim_end_matches('\n').strip_prefix(&self.prefix) {
                None => self.keep_noise(&line),
                Some(reply) => match parse(reply).ok_or_else(|| Error::Malformed(reply.to_owned()))? {
                    Reply::Frame(frame) => frames.push(frame),
                    Reply::Open(_, wanted) if wanted.bytes > PAYLOAD_LIMIT => {
                        return Err(Error::TooLarge(wanted.bytes));
                    }
                    Reply::Open(header, wanted) => self.open = Some((header, wanted)),
                },
            }
        }
    }

    fn keep_noise(&mut self, bytes: &[u8]) {
        self.noise.extend_from_slice(bytes);
        let surplus = self.noise.len().saturating_sub(LINE_LIMIT);
        self.noise.drain(..surplus);
    }
}

enum Reply {
    Frame(Frame),
    Open(Header, Wanted),
}

fn parse(reply: &str) -> Option<Reply> {
    let (verb, rest) = reply.split_once(' ').unwrap_or((reply, ""));
    let words: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
    let word = |place: usize| words.get(place).map(|word| (*word).to_owned());
    let frame = match verb {
        "hello" => Frame::Hello { witness: word(0)? },
        "run" => Frame::Past(Past {
            run_id: word(0)?,
            phase: word(1)?,
            active: words.get(4) == Some(&"running"),
            started: *words.get(4)? != "none",
        }),
        "ready" => Frame::Ready,
        "facts" => return Some(Reply::Open(Header::Facts, Wanted { bytes: 0, lines: word(0)?.parse().ok()? })),
        "started" => Frame::Started(word(0)?),
        "attached" => Frame::Attached(word(0)?),
        "absent" => Frame::Absent(word(0)?),
        "busy" => Frame::Busy(word(0)?),
        "beat" => Frame::Beat,
        "refused" => {
            let (reason, message) = rest.split_once(' ').unwrap_or((rest, ""));
            Frame::Refused { reason: reason.to_owned(), message: message.to_owned() }
        }
        "ended" => return ended(&words),
        _ => return None,
    };
    Some(Reply::Frame(frame))
}

/// `ended RUN PHASE ATTEMPT DIGEST STATUS STARTED FINISHED TOTAL SUM SEAL FROM OUTPUT FACTS ACTIONS`: the bytes of the
/// output, those of the facts, and the lines of what the actions did, in the order in which they follow.
fn ended(words: &[&str]) -> Option<Reply> {
    let [run_id, phase, attempt, digest, status, began, finished, total, sum, seal, from, output, facts, actions] =
        words
    else {
        return None;
    };
    let verdict = match *status {
        "timeout" => Verdict::TimedOut,
        "cancelled" => Verdict::Cancelled,
        "died" => Verdict::Died,
        status => Verdict::Exit(status.strip_prefix("exit:")?.parse().ok()?),
    };
    let lengths: [usize; 2] = [output.parse().ok()?, facts.parse().ok()?];
    let ended = Ended {
        run_id: (*run_id).to_owned(),
        phase: (*phase).to_owned(),
        attempt: attempt.parse().ok()?,
        digest: (*digest).to_owned(),
        verdict,
        times: began.parse().ok().zip(finished.parse().ok()).filter(|(began, _)| *began > 0),
        seal: (*seal).to_owned(),
        from: from.parse().ok()?,
        output_bytes: total.parse().ok()?,
        output: String::new(),
        actions: Vec::new(),
        facts: Vec::new(),
    };
    let wanted = Wanted { bytes: lengths[0].saturating_add(lengths[1]), lines: actions.parse().ok()? };
    Some(Reply::Open(Header::Ended { ended: Box::new(ended), sum: (*sum).to_owned(), lengths }, wanted))
}

fn complete(header: Header, mut payload: Vec<u8>) -> Result<Frame, Error> {
    match header {
        Header::Facts => Ok(Frame::Facts(payload)),
        Header::Ended { mut ended, sum, lengths: [output, facts] } => {
            let actions = payload.split_off(output + facts);
            let facts = payload.split_off(output);
            if sum != "-" && hex(&Sha256::digest(&payload)) != sum {
                return Err(Error::Damaged(ended.run_id));
            }
            ended.output = printable(&payload);
            ended.actions = parse_actions(&actions);
            ended.facts = facts;
            Ok(Frame::Ended(ended))
        }
    }
}

/// The longest name of an action, in characters: that of a ServerSpec, a slash, and its own.
const NAME_LIMIT: usize = 127;
/// How much of an action's diff is kept, and how much of all of one run, in bytes.
const DIFF_LIMIT: usize = 1024;
const DIFFS_LIMIT: usize = 16 << 10;

/// Lines of a word and a name, each followed by the lines of a diff, led by a tab.
fn parse_actions(payload: &[u8]) -> Vec<ActionResult> {
    let mut actions: Vec<ActionResult> = Vec::new();
    let (mut room, mut whole) = (DIFFS_LIMIT, true);
    for line in String::from_utf8_lossy(payload).lines() {
        if let (Some(text), Some(action)) = (line.strip_prefix('\t'), actions.last_mut()) {
            let text = printable(text.as_bytes());
            let length = text.len() + 1;
            // A diff is cut at its end, and has no holes.
            whole &= action.diff.len() + length <= DIFF_LIMIT && length <= room;
            if whole {
                action.diff += &text;
                action.diff.push('\n');
                room -= length;
            }
            continue;
        }
        whole = true;
        let Some((word, name)) = line.split_once(' ') else { continue };
        let result = match word {
            "Changed" => Effect::Changed,
            "Unchanged" => Effect::Unchanged,
            "Failed" => Effect::Failed,
            "Skipped" => Effect::Skipped,
            "Waiting" => Effect::Waiting,
            "Unknowable" => Effect::Unknowable,
            _ => continue,
        };
        if actions.len() == MOST_ACTIONS {
            break;
        }
        let name = name.chars().take(NAME_LIMIT).collect();
        actions.push(ActionResult { name, result, diff: String::new() });
    }
    actions
}

/// Output as it may stand in a status: text, without escape sequences or other control characters.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                // A control sequence ends with its first letter (ECMA-48).
                for c in chars.by_ref().skip(1) {
                    if ('@'..='~').contains(&c) {
                        break;
                    }
                }
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let output = b"hello\nn0nce beat\n";
        let mut bytes = b"profile noise\nn0nce hello w-1 /var/lib/pallet\n".to_vec();
        bytes.extend_from_slice(b"n0nce run r0 configure 2 d0 running\nn0nce ready\nn0nce started r1\nn0nce beat\n");
        bytes.extend_from_slice(
            format!(
                "n0nce ended r1 configure 1 d1 exit:3 10 12 5000 {} - 0 {} 9 3\n",
                hex(&Sha256::digest(output)),
                output.len()
            )
            .as_bytes(),
        );
        bytes.extend_from_slice(output);
        bytes.extend_from_slice(b"a ok 1\nx\nChanged a b\n\tn0nce ready\nFailed two\nn0nce refused state no room\n");
        bytes
    }

    #[test]
    fn frames_come_out_wherever_the_bytes_are_cut() {
        let whole = Decoder::new("n0nce").push(&stream()).unwrap();
        assert_eq!(whole.len(), 7, "{whole:#?}");
        let Frame::Ended(ended) = &whole[5] else { panic!("{:?}", whole[5]) };
        assert_eq!((ended.verdict, ended.times, ended.output_bytes), (Verdict::Exit(3), Some((10, 12)), 5000));
        assert_eq!((ended.actions[0].name.as_str(), ended.facts.as_slice()), ("a b", &b"a ok 1\nx\n"[..]));
        assert_eq!(ended.actions[0].diff, "n0nce ready\n");
        assert_eq!(ended.actions[1].result, Effect::Failed);
        assert_eq!(whole[6], Frame::Refused { reason: "state".into(), message: "no room".into() });
        for cut in 0..stream().len() {
            let mut decoder = Decoder::new("n0nce");
            let mut frames = decoder.push(&stream()[..cut]).unwrap();
            frames.extend(decoder.push(&stream()[cut..]).unwrap());
            assert_eq!(frames, whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_does_not_know_the_nonce_is_noise() {
        let mut decoder = Decoder::new("secret");
        assert_eq!(decoder.push(b"nonce ended r1\nguess ready\nsecre ready\n").unwrap(), []);
        assert!(decoder.noise().ends_with("secre ready"));
    }

    #[test]
    fn a_flood_without_newlines_is_bounded() {
        let mut decoder = Decoder::new("n");
        for _ in 0..1000 {
            decoder.push(&[b'x'; 8192]).unwrap();
        }
        assert!(decoder.buffer.len() <= LINE_LIMIT + 8192 && decoder.noise.len() <= LINE_LIMIT);
        assert_eq!(decoder.push(b"\nn ready\n").unwrap(), [Frame::Ready]);
    }

    #[test]
    fn a_damaged_output_is_no_result() {
        let error = Decoder::new("n").push(b"n ended r p 1 d exit:0 1 2 3 99 - 0 3 0 0\nabc").unwrap_err();
        assert_eq!(error, Error::Damaged("r".into()));
        let header = "n ended r p 1 d exit:0 1 2 3 - - 0 99999999 0 0\n";
        assert!(matches!(Decoder::new("n").push(header.as_bytes()), Err(Error::TooLarge(_))));
        let mut endless = Decoder::new("n");
        endless.push(b"n facts 99999999\n").unwrap();
        let lines = b"a\tb\n".repeat(1 << 16);
        let refused = (0..9).find_map(|_| endless.push(&lines).err());
        assert!(matches!(refused, Some(Error::TooLarge(_))), "{refused:?}");
        assert!(matches!(Decoder::new("n").push(b"n ended short\n"), Err(Error::Malformed(_))));
    }

    #[test]
    fn a_status_holds_no_escape_sequences() {
        assert_eq!(printable(b"\x1b[1;31mred\x1b[0m\r\n\x07tab\there\xff"), "red\ntab\there\u{fffd}");
    }
}
