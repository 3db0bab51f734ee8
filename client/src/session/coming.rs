//! Text that comes in pieces: what is not yet a sentence waits for the next piece, a flush, or the end.

use std::time::Instant;

use chorus_protocol::{MAX_UNPLANNED_BYTES, Reason, ServiceError};

use super::Session;

impl Session {
    /// More of the text has come. Nothing happens where no more was announced.
    pub fn on_text(&mut self, text: &str, now: Instant) {
        if !self.rest.is_open() || self.is_ended() {
            return;
        }
        if self.rest.len() + text.len() > self.config.max_text_bytes {
            let message = format!("the text is longer than {} bytes", self.config.max_text_bytes);
            return self.fail(ServiceError::field(Reason::TooLarge, "text", message), now);
        }
        self.rest.add(text);
        self.text_moved(now);
    }

    /// What has come of the text is to be spoken, though its last sentence may not look complete.
    pub fn on_flush(&mut self, now: Instant) {
        if self.rest.is_open() && !self.is_ended() {
            self.rest.flush();
            self.text_moved(now);
        }
    }

    /// No more text will come.
    pub fn on_text_end(&mut self, now: Instant) {
        if !self.rest.is_open() || self.is_ended() {
            return;
        }
        self.rest.close();
        if self.rest.is_blank() {
            let message = "the text has ended and holds nothing to say";
            return self.fail(ServiceError::field(Reason::Unspeakable, "text", message), now);
        }
        self.text_moved(now);
    }

    /// Whether more text is welcome: what is there has been planned, or nearly.
    pub fn wants_text(&self) -> bool {
        self.rest.is_open() && self.rest.unplanned_bytes() < MAX_UNPLANNED_BYTES
    }

    fn text_moved(&mut self, now: Instant) {
        self.waits_for_text = false;
        self.text_revision += 1;
        self.moved_at = now;
        if self.next_segment == self.first_segment {
            // The time for first audio is that of the fleet, not of who writes.
            self.words_at = now;
            self.deadline = now + self.first_audio_within;
        }
        self.pump(now);
    }

    /// Nobody but the writer is waited for.
    pub(super) fn idle(&self) -> bool {
        self.rest.is_open() && !self.asking && self.next_release == self.next_segment
    }
}
