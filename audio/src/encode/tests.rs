//! Every format against a decoder that is not ours.

use std::f64::consts::TAU;
#[cfg(any(feature = "mp3", feature = "opus", feature = "vorbis"))]
use std::io::Cursor;

use super::*;

/// A second and a bit of something like a voice.
fn voice(rate: u32) -> Vec<i16> {
    let count = rate as usize * 5 / 4;
    let sample = |at: usize| {
        let time = at as f64 / f64::from(rate);
        let syllable = (0.5 - 0.5 * (TAU * 4.0 * time).cos()).powi(2);
        let tones = (1..10).map(|n| (TAU * 130.0 * f64::from(n) * time).sin() / f64::from(n));
        (12_000.0 * syllable * tones.sum::<f64>() / 1.9).round() as i16
    };
    (0..count).map(sample).collect()
}

/// The best signal-to-noise ratio, in dB, of `found` against `expected` over small delays; judged on a
/// few thousand samples that hold a syllable.
#[cfg(any(feature = "mp3", feature = "opus", feature = "vorbis"))]
fn ratio_db(expected: &[i16], found: &[i16], most_delay: usize) -> f64 {
    let expected = &expected[..expected.len().min(9_000)];
    let power: f64 = expected.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    let noise = |delay: usize| {
        let shifted = found[delay.min(found.len())..].iter().copied().chain(std::iter::repeat(0));
        expected.iter().zip(shifted).map(|(&a, b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>()
    };
    let least = (0..=most_delay).map(noise).fold(f64::INFINITY, f64::min);
    10.0 * (power / least.max(1.0)).log10()
}

#[test]
fn formats_are_known_by_name() {
    for format in AudioFormat::ALL {
        assert_eq!(format.name().to_uppercase().parse::<AudioFormat>().unwrap(), format);
        let made = encoder(format, &EncoderConfig { sample_rate: 22_050, total_samples: None });
        assert!(made.is_ok() == is_built(format), "{format}");
    }
    let config = EncoderConfig { sample_rate: 0, total_samples: None };
    assert!(matches!(encoder(AudioFormat::Wav, &config), Err(EncodeError::SampleRate { .. })));
}

#[test]
fn every_format_streams_alike_however_it_is_fed() {
    let samples = voice(22_050);
    for format in AudioFormat::ALL.into_iter().filter(|format| is_built(*format)) {
        let whole = encode_in_pieces(format, &samples, 22_050, usize::MAX);
        assert_eq!(encode_in_pieces(format, &samples, 22_050, 777), whole, "{format}");
        assert!(
            format == AudioFormat::Pcm || !encode_in_pieces(format, &[], 22_050, 1).is_empty(),
            "{format}"
        );
    }
}

#[test]
fn every_compressed_format_gives_sound_before_the_end() {
    let samples = voice(22_050);
    for format in AudioFormat::ALL.into_iter().filter(|format| is_built(*format)) {
        let mut encoder =
            encoder(format, &EncoderConfig { sample_rate: 22_050, total_samples: None }).unwrap();
        let header = encoder.push(&[]).unwrap().len();
        let bytes = encoder.push(&samples).unwrap().len();
        assert!(bytes > 2_000, "{format}: {header} bytes of header, {bytes} of a second");
    }
}

#[cfg(feature = "vorbis")]
#[test]
fn vorbis_is_read_back() {
    let samples = voice(22_050);
    let bytes = encode_in_pieces(AudioFormat::Ogg, &samples, 22_050, 500);
    let mut reader = lewton::inside_ogg::OggStreamReader::new(Cursor::new(bytes)).unwrap();
    assert_eq!((reader.ident_hdr.audio_sample_rate, reader.ident_hdr.audio_channels), (22_050, 1));
    let mut found = Vec::new();
    while let Some(packet) = reader.read_dec_packet_itl().unwrap() {
        found.extend(packet);
    }
    assert_eq!(found.len(), samples.len());
    let ratio = ratio_db(&samples, &found, 0);
    assert!(ratio > 15.0, "{ratio} dB");
}

#[cfg(feature = "opus")]
#[test]
fn opus_is_read_back_to_the_sample() {
    let samples = voice(48_000);
    let bytes = encode_in_pieces(AudioFormat::Opus, &samples, 48_000, 500);
    let mut reader = ogg::PacketReader::new(Cursor::new(bytes));
    let head = reader.read_packet().unwrap().unwrap();
    assert_eq!(&head.data[..8], b"OpusHead");
    let pre_skip = usize::from(u16::from_le_bytes([head.data[10], head.data[11]]));
    reader.read_packet().unwrap().unwrap();
    let mut decoder = ropus::Decoder::new(48_000, ropus::Channels::Mono).unwrap();
    let (mut found, mut end) = (Vec::new(), 0);
    while let Some(packet) = reader.read_packet().unwrap() {
        let mut block = vec![0; 5_760];
        let length = decoder.decode(&packet.data, &mut block, ropus::DecodeMode::Normal).unwrap();
        found.extend_from_slice(&block[..length]);
        end = packet.absgp_page() as usize;
    }
    assert_eq!(end - pre_skip, samples.len());
    let ratio = ratio_db(&samples, &found[pre_skip..end], 0);
    assert!(ratio > 10.0, "{ratio} dB");
}

#[cfg(feature = "mp3")]
fn decode_mp3(bytes: Vec<u8>) -> (u32, Vec<i16>) {
    use symphonia::core::audio::GenericAudioBufferRef;
    use symphonia::core::codecs::audio::AudioDecoderOptions;
    use symphonia::core::formats::TrackType;
    use symphonia::core::io::MediaSourceStream;
    let source = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let mut reader = symphonia::default::get_probe()
        .probe(&Default::default(), source, Default::default(), Default::default())
        .unwrap();
    let track = reader.default_track(TrackType::Audio).unwrap().clone();
    let parameters = track.codec_params.as_ref().unwrap().audio().unwrap().clone();
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(&parameters, &AudioDecoderOptions::default())
        .unwrap();
    let mut found: Vec<i16> = Vec::new();
    while let Some(packet) = reader.next_packet().unwrap() {
        let buffer: GenericAudioBufferRef<'_> = decoder.decode(&packet).unwrap();
        let mut block: Vec<i16> = Vec::new();
        buffer.copy_to_vec_interleaved(&mut block);
        found.extend(block);
    }
    (parameters.sample_rate.unwrap(), found)
}

#[cfg(feature = "mp3")]
#[test]
fn mp3_is_read_back_at_every_rate() {
    for rate in [16_000, 22_050, 48_000] {
        let samples = voice(rate);
        for bytes in [
            encode_in_pieces(AudioFormat::Mp3, &samples, rate, 500),
            encode_file(AudioFormat::Mp3, &samples, rate).unwrap(),
        ] {
            let (found_rate, found) = decode_mp3(bytes);
            assert_eq!(found_rate, rate);
            assert!(found.len() >= samples.len(), "{} of {}", found.len(), samples.len());
            let ratio = ratio_db(&samples, &found, 1_800);
            assert!(ratio > 15.0, "{rate} Hz: {ratio} dB");
        }
    }
}
