//! In which class a segment is queued.
//!
//! Classes are served urgent first, low last. The first segment of a request travels one class up, so that a listener
//! hears something soon; but a low request's goes no higher than normal. A stream about to run dry asks urgently.

use chorus_protocol::{JobClass, Priority, SegmentIndex};

/// The class of a new segment.
pub fn class_of(priority: Priority, index: SegmentIndex, urgent: bool) -> JobClass {
    match (priority, index) {
        _ if urgent => JobClass::Urgent,
        (Priority::Low, 0) => JobClass::Normal,
        (Priority::Normal, 0) => JobClass::High,
        _ => JobClass::from(priority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_segments_travel_one_class_up_and_never_into_high_from_low() {
        let class = |priority, index| class_of(priority, index, false);
        assert_eq!(class(Priority::Low, 0), JobClass::Normal);
        assert_eq!(class(Priority::Low, 1), JobClass::Low);
        assert_eq!(class(Priority::Normal, 0), JobClass::High);
        assert_eq!(class(Priority::Normal, 7), JobClass::Normal);
        assert_eq!(class(Priority::High, 0), JobClass::High);
        assert_eq!(class(Priority::High, 1), JobClass::High);
        assert_eq!(class_of(Priority::Low, 5, true), JobClass::Urgent);
    }
}
