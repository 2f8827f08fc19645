//! Pure: what the agent says, out of a stream of bytes.
//!
//! A reply is a line led by the session's nonce, with payloads behind it that are counted in bytes or in lines. Whatever else comes is noise: it is kept,
//! bounded, for messages, and can be nothing but noise, since no script knows the nonce.

use sha2::{Digest as _, Sha256};

use crate::{group::resolve::MOST_ACTIONS, phase::hex, text};
use pallet_api::group_node::{ActionResult, Effect};

/// One reply of the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// The node is the one that was meant.
    Hello {
        /// What its file system is known by.
        filesystem_id: String,
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
    /// Whether a session may go on to the next phase upon it, which takes the evaluation of templates.
    pub fn may_go_on(&self) -> bool {
        matches!(self, Frame::Ready | Frame::Facts(_) | Frame::Absent(_) | Frame::Busy(_) | Frame::Ended(_))
    }

    /// What kind of frame it is, in the agent's word.
    pub fn kind(&self) -> &'static str {
        match self {
            Frame::Hello { .. } => "hello",
            Frame::Past(_) => "run",
            Frame::Ready => "ready",
            Frame::Facts(_) => "facts",
            Frame::Started(_) => "started",
            Frame::Attached(_) => "attached",
            Frame::Absent(_) => "absent",
            Frame::Busy(_) => "busy",
            Frame::Ended(_) => "ended",
            Frame::Beat => "beat",
            Frame::Refused { .. } => "refused",
        }
    }

    /// The frame for a log: without output, diffs, messages and facts, which may hold anything.
    pub fn summary(&self) -> String {
        match self {
            Frame::Facts(facts) => format!("Facts({} bytes)", facts.len()),
            Frame::Ended(ended) => {
                let Ended { run_id, phase, attempt, digest, verdict, output, actions, facts, .. } = &**ended;
                let (output, actions, facts) = (output.len(), actions.len(), facts.len());
                format!(
                    "Ended({run_id}, {phase}, attempt {attempt} at {digest}, {verdict:?}, {actions} actions, {output} bytes of output, \
                     {facts} of facts)"
                )
            }
            Frame::Refused { reason, .. } => format!("Refused({reason})"),
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
    /// What was run; empty where the journal does not know.
    pub digest: String,
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
/// The largest payload that is taken in. The agent's own bounds lie below: 2 KiB of output, 384 KiB of facts, 344 KiB of actions.
const PAYLOAD_LIMIT: usize = 1 << 20;
/// How much of a run's output is kept, in bytes: as much as the agent sends.
pub const OUTPUT_LIMIT: usize = 2048;

/// What a node may send between two requests, in bytes. An honest agent sends one payload, and a beat every 10 seconds of a run
/// of at most 24 hours.
const STAGE_BYTES: usize = 4 << 20;
/// How much of that may be noise.
const STAGE_NOISE: usize = 1 << 20;
/// How many frames.
const STAGE_FRAMES: usize = 16 << 10;

/// Takes bytes in and gives frames out. Its work is linear in the bytes, however they are cut; its memory is bounded by twice
/// the largest payload.
#[derive(Debug)]
pub struct Decoder {
    prefix: Vec<u8>,
    buffer: Vec<u8>,
    /// Where in the buffer that begins which was not consumed.
    start: usize,
    /// Up to where it was searched for newlines.
    scanned: usize,
    /// A header whose payloads are not all there yet.
    open: Option<(Header, Wanted)>,
    noise: Noise,
    skipping: bool,
    stage: Stage,
    /// How many bytes were looked at or moved so far.
    work: usize,
}

/// What came since the last request.
#[derive(Debug, Default)]
struct Stage {
    bytes: usize,
    noise: usize,
    frames: usize,
}

/// The last of what was no reply.
#[derive(Debug, Default)]
struct Noise {
    kept: Vec<u8>,
    cut: bool,
}

impl Noise {
    /// Returns how many bytes were moved for it.
    fn keep(&mut self, bytes: &[u8]) -> usize {
        let bytes = &bytes[bytes.len().saturating_sub(LINE_LIMIT)..];
        self.kept.extend_from_slice(bytes);
        // Not at each line: what stays is moved.
        if self.kept.len() <= 2 * LINE_LIMIT {
            return bytes.len();
        }
        let surplus = self.kept.len() - LINE_LIMIT;
        self.kept.drain(..surplus);
        self.cut = true;
        bytes.len() + LINE_LIMIT
    }
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

/// What follows a header: so many bytes, and so many lines behind them that were not found yet.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    bytes: usize,
    lines: usize,
}

/// The stream does not keep to the protocol: the session must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A reply that cannot be read.
    #[error("the agent's reply cannot be read: {0:?}")]
    Malformed(String),
    /// A payload larger than any agent sends.
    #[error("the agent announced a payload of {0} bytes; {PAYLOAD_LIMIT} are the most")]
    TooLarge(usize),
    /// More bytes than any agent sends.
    #[error("the node sent more than {STAGE_BYTES} bytes in answer to one request")]
    TooMuch,
    /// More frames than any agent sends.
    #[error("the agent sent more than {STAGE_FRAMES} replies to one request")]
    TooMany,
    /// More noise than any login profile makes.
    #[error("the node printed more than {STAGE_NOISE} bytes that are no replies of the agent")]
    Noise,
    /// The output does not match its hash.
    #[error("the output of run {0} was damaged on its way")]
    Damaged(String),
}

impl Decoder {
    /// A decoder for the session that has this nonce.
    pub fn new(nonce: &str) -> Self {
        Self {
            prefix: format!("{nonce} ").into_bytes(),
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            open: None,
            noise: Noise::default(),
            skipping: false,
            stage: Stage::default(),
            work: 0,
        }
    }

    /// The last of what came and was no reply, at most 4 KiB, for people.
    pub fn noise(&self) -> String {
        let kept = &self.noise.kept[self.noise.kept.len().saturating_sub(LINE_LIMIT)..];
        text::printable(&String::from_utf8_lossy(kept)).trim().to_owned()
    }

    /// Whether there was more noise than [`Decoder::noise`] returns.
    pub fn noise_is_cut(&self) -> bool {
        self.noise.cut || self.noise.kept.len() > LINE_LIMIT
    }

    /// A request was sent: what the node may send is counted anew.
    pub fn next_stage(&mut self) {
        self.stage = Stage::default();
    }

    /// Takes bytes in, and gives the frames that they complete.
    ///
    /// # Errors
    /// See [`Error`]; the decoder is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, Error> {
        self.stage.bytes = self.stage.bytes.saturating_add(bytes.len());
        if self.stage.bytes > STAGE_BYTES {
            return Err(Error::TooMuch);
        }
        self.make_room();
        self.buffer.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = self.next()? {
            self.stage.frames += 1;
            if self.stage.frames > STAGE_FRAMES {
                return Err(Error::TooMany);
            }
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Gives up what was consumed. What is left is moved only when it is no more than that.
    fn make_room(&mut self) {
        let left = self.buffer.len() - self.start;
        if self.start == 0 || left > self.start {
            return;
        }
        self.work += left;
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        // One large payload does not take its room for the rest of the session.
        if self.buffer.capacity() > 64 << 10 {
            self.buffer.shrink_to(64 << 10);
        }
    }

    /// The next frame of what is buffered, if it is all there.
    fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some((header, mut wanted)) = self.open.take() {
                let Some(end) = self.payload(&mut wanted) else {
                    let announced = self.buffer.len() - self.start;
                    self.open = Some((header, wanted));
                    return if announced > PAYLOAD_LIMIT { Err(Error::TooLarge(announced)) } else { Ok(None) };
                };
                if end - self.start > PAYLOAD_LIMIT {
                    return Err(Error::TooLarge(end - self.start));
                }
                let payload = self.buffer[self.start..end].to_vec();
                self.consume(end);
                return complete(header, payload).map(Some);
            }
            let Some(end) = self.newline() else {
                if self.buffer.len() - self.start > LINE_LIMIT {
                    // No reply is that long: noise without newlines.
                    self.skipping = true;
                    self.is_noise(self.buffer.len())?;
                }
                return Ok(None);
            };
            let line = &self.buffer[self.start..end - 1];
            let reply = line.strip_prefix(self.prefix.as_slice()).filter(|_| line.len() <= LINE_LIMIT);
            let Some(reply) = reply.filter(|_| !self.skipping) else {
                self.skipping = false;
                self.is_noise(end)?;
                continue;
            };
            let reply = String::from_utf8_lossy(reply).into_owned();
            self.consume(end);
            match parse(&reply).ok_or_else(|| Error::Malformed(text::line(&reply, 200)))? {
                Reply::Frame(frame) => return Ok(Some(frame)),
                Reply::Open(_, wanted) if wanted.bytes > PAYLOAD_LIMIT => return Err(Error::TooLarge(wanted.bytes)),
                Reply::Open(header, wanted) => self.open = Some((header, wanted)),
            }
        }
    }

    /// The end of the payload at hand, where it is all there.
    fn payload(&mut self, wanted: &mut Wanted) -> Option<usize> {
        let behind = self.start + wanted.bytes;
        if behind > self.buffer.len() {
            return None;
        }
        self.scanned = self.scanned.max(behind);
        while wanted.lines > 0 {
            self.newline()?;
            wanted.lines -= 1;
        }
        Some(self.scanned)
    }

    /// The end of the next line that was not found yet.
    fn newline(&mut self) -> Option<usize> {
        let rest = &self.buffer[self.scanned..];
        let length = rest.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let looked_at = length.unwrap_or(rest.len());
        self.scanned += looked_at;
        self.work += looked_at;
        length.map(|_| self.scanned)
    }

    fn consume(&mut self, end: usize) {
        self.work += end - self.start;
        self.start = end;
        self.scanned = end;
    }

    fn is_noise(&mut self, end: usize) -> Result<(), Error> {
        self.work += self.noise.keep(&self.buffer[self.start..end]);
        self.stage.noise += end - self.start;
        self.consume(end);
        if self.stage.noise > STAGE_NOISE { Err(Error::Noise) } else { Ok(()) }
    }
}

enum Reply {
    Frame(Frame),
    Open(Header, Wanted),
}

/// The longest run, phase, digest or filesystem ID, in characters.
const WORD_LIMIT: usize = 128;

fn is_word(text: &str) -> bool {
    text::is_word(text, WORD_LIMIT)
}

fn parse(reply: &str) -> Option<Reply> {
    let (verb, rest) = reply.split_once(' ').unwrap_or((reply, ""));
    let words: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
    let word = |place: usize| words.get(place).filter(|word| is_word(word)).map(|word| (*word).to_owned());
    let frame = match verb {
        "hello" => Frame::Hello { filesystem_id: word(0)? },
        "run" => Frame::Past(Past {
            run_id: word(0)?,
            phase: word(1)?,
            digest: word(3).filter(|digest| digest != "-").unwrap_or_default(),
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
            Frame::Refused { reason: text::line(reason, 64), message: text::printable(message).into_owned() }
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
    if ![run_id, phase, digest, sum, seal].into_iter().all(|word| is_word(word)) {
        return None;
    }
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
        from: from.parse::<u32>().ok()?.min(MOST_ACTIONS as u32),
        output_bytes: total.parse::<i64>().ok()?.max(0),
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
            // What is missing of it is known by that.
            ended.output_bytes = ended.output_bytes.max(i64::try_from(output).unwrap_or(i64::MAX));
            let last = &payload[output.saturating_sub(OUTPUT_LIMIT)..];
            ended.output = text::printable(&String::from_utf8_lossy(last)).into_owned();
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
    for line in payload.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        if let (Some(text), Some(action)) = (line.strip_prefix('\t'), actions.last_mut()) {
            let text = text::printable(text);
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
            "Unknown" => Effect::Unknown,
            _ => continue,
        };
        if actions.len() == MOST_ACTIONS {
            break;
        }
        actions.push(ActionResult { name: text::line(name, NAME_LIMIT), result, diff: String::new() });
    }
    actions
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
            decoder.next_stage();
        }
        assert!(decoder.buffer.len() <= LINE_LIMIT + 8192 && decoder.noise.kept.len() <= 2 * LINE_LIMIT);
        assert!(decoder.noise().len() <= LINE_LIMIT && decoder.noise_is_cut());
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
    fn what_comes_in_answer_to_one_request_is_bounded() {
        let flood = |line: &str| {
            let (mut decoder, lines) = (Decoder::new("n"), line.repeat((16 << 10) / line.len()));
            let error = (0..1000).find_map(|_| decoder.push(lines.as_bytes()).err());
            assert!(decoder.buffer.capacity() <= 64 << 10, "{line:?}");
            error.unwrap_or_else(|| panic!("{line:?} was taken in for ever"))
        };
        assert_eq!(flood("noise\n"), Error::Noise);
        assert_eq!(flood("\n"), Error::Noise);
        assert_eq!(flood("n run r configure 1 d ended\n"), Error::TooMany);
        assert_eq!(flood(&format!("n facts 1\nos.name\t{}\n", "x".repeat(8000))), Error::TooMuch);
        // Another request makes room for another answer.
        let mut decoder = Decoder::new("n");
        for _ in 0..100 {
            decoder.push("noise\n".repeat(20_000).as_bytes()).unwrap();
            decoder.next_stage();
        }
    }

    /// Found by review: what was buffered was searched anew at each read, and each line was moved out of its front.
    #[test]
    fn the_work_is_linear_however_the_bytes_are_cut() {
        let facts = "a\tb\n".repeat((1 << 20) / 4 - 8);
        let frame = format!("n facts {}\n{facts}", (1 << 20) / 4 - 8);
        let empty = "\n".repeat((1 << 20) - 1);
        let long = format!("{}\n", "x".repeat((1 << 20) - 1));
        for (text, step) in [(&frame, 1), (&frame, 1000), (&empty, 1), (&empty, 16 << 10), (&long, 1)] {
            let mut decoder = Decoder::new("n");
            let frames: usize = text.as_bytes().chunks(step).map(|part| decoder.push(part).unwrap().len()).sum();
            assert_eq!(frames, usize::from(text == &frame));
            assert!(decoder.work <= 8 * text.len(), "{} for {} bytes by {step}", decoder.work, text.len());
        }
    }

    #[test]
    fn nothing_of_a_frame_is_longer_or_other_than_what_an_agent_sends() {
        for reply in ["run a\u{1b}[2J configure 1 d ended", "hello w\u{e9}", "busy \u{202e}x"] {
            let error = Decoder::new("n").push(format!("n {reply}\n").as_bytes()).unwrap_err();
            let Error::Malformed(shown) = &error else { panic!("{error:?}") };
            assert_eq!(*shown, text::line(shown, 200));
        }
        let long = format!("n started {}\n", "x".repeat(WORD_LIMIT + 1));
        assert!(matches!(Decoder::new("n").push(long.as_bytes()), Err(Error::Malformed(_))));
        let refused = Decoder::new("n").push("n refused st\u{7}ate no \u{1b}[2Jroom\u{202e}\n".as_bytes()).unwrap();
        assert_eq!(refused, [Frame::Refused { reason: "state".into(), message: "no room".into() }]);
        let output = "x".repeat(3000) + "\u{1b}[31mend";
        let actions = "Changed a\u{1b}[2J\u{202e}b\n\td\u{9b}2Jiff\n";
        let frame = format!("n ended r p 1 d exit:0 1 2 -7 - - {} {} 0 2\n{output}{actions}", u32::MAX, output.len());
        let mut frames = Decoder::new("n").push(frame.as_bytes()).unwrap();
        let Some(Frame::Ended(ended)) = frames.pop() else { panic!("{frames:?}") };
        assert!(ended.output.len() <= OUTPUT_LIMIT && ended.output.ends_with("xend"), "{}", ended.output);
        assert_eq!((ended.output_bytes, ended.from), (output.len() as i64, MOST_ACTIONS as u32));
        assert_eq!((ended.actions[0].name.as_str(), ended.actions[0].diff.as_str()), ("ab", "diff\n"));
    }
}
