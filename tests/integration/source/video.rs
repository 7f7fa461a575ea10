//! Videos, with scripts in place of FFmpeg's programs: a version that rejects `-vsync`, one without `-fps_mode`, one without
//! `ffprobe`, broken ones. They print what versions 4.2, 5.1 and 9.0 print.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{code, npy, stderr, until};

/// The script in place of `ffmpeg`. It reads its output from files beside it.
const FFMPEG: &str = r#"#!/bin/sh
here=${0%/*}
for option in "$@"; do
  if [ -e "$here/rejects$option" ]; then echo "Unrecognized option '${option#-}'." >&2; exit 8; fi
done
case " $* " in
  *" -version "*) echo "libavcodec     61.  3.100 / 61.  3.100"; exit 0 ;;
  *" rawvideo "*) printf 'P7\nWIDTH 2\nHEIGHT 2\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n'; exec /bin/cat ;;
  *" image2pipe "*)
    case " $* " in *setpts=*) ;; *)
      if [ -e "$here/same_times" ]; then echo "non monotonically increasing dts to muxer in stream 0: 1 >= 1" >&2; exit 1; fi ;;
    esac
    case " $* " in *" -pix_fmt gray "*) if [ -e "$here/narrow.pam" ]; then exec /bin/cat "$here/narrow.pam"; fi ;; esac
    case " $* " in *" -map 0:1 "*) /bin/cat "$here/other.pam" ;; *) /bin/cat "$here/frames.pam" ;; esac
    if [ -e "$here/complaints" ]; then /bin/cat "$here/complaints" >&2; fi
    exit 0 ;;
  *) /bin/cat "$here/streams.txt" >&2; exit 1 ;;
esac
"#;
const FFPROBE: &str = r#"#!/bin/sh
case " $* " in *" packet=size,flags "*) /bin/cat "${0%/*}/packets" ;; *) /bin/cat "${0%/*}/streams.json" ;; esac
"#;

/// A video, and programs that describe it.
struct Stand {
    dir: TempDir,
}

/// A frame in FFmpeg's form: a PAM image.
fn pam(width: usize, height: usize, channels: usize, most: u32, samples: &[u8]) -> Vec<u8> {
    let mut frame = format!("P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL {most}\nTUPLTYPE X\nENDHDR\n").into_bytes();
    assert_eq!(samples.len(), width * height * channels * if most > 255 { 2 } else { 1 });
    frame.extend_from_slice(samples);
    frame
}

impl Stand {
    /// A video with streams of these pixel formats, the frames of the first one, and the container's number of frames.
    fn new(pixels: &[&str], frames: &[Vec<u8>], claimed: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stand = Self { dir };
        let streams: Vec<String> = pixels
            .iter()
            .enumerate()
            .map(|(index, pixels)| {
                format!(
                    r#"{{"index": {index}, "codec_name": "ffv1", "codec_type": "video", "width": 2, "height": 1, "pix_fmt": "{pixels}", "nb_frames": "{claimed}"}}"#
                )
            })
            .collect();
        stand.put("streams.json", format!(r#"{{"streams": [{}], "format": {{"format_name": "matroska,webm"}}}}"#, streams.join(", ")));
        let lines: Vec<String> = pixels
            .iter()
            .enumerate()
            .map(|(index, pixels)| format!("  Stream #0:{index}: Video: ffv1 (FFV1 / 0x31564646), {pixels}, 2x1, 5 fps, 5 tbr (default)\n"))
            .collect();
        stand.put(
            "streams.txt",
            format!("Input #0, matroska,webm, from 'file:x':\n{}At least one output file must be specified\n", lines.concat()),
        );
        stand.put("packets", "7,K__\n".repeat(claimed));
        stand.put("frames.pam", frames.concat());
        stand.put("clip.mkv", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x88matroska");
        stand.program("ffmpeg", FFMPEG);
        stand.program("ffprobe", FFPROBE);
        stand
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join(name), content).unwrap();
    }

    fn program(&self, name: &str, text: &str) {
        self.put(name, text);
        fs::set_permissions(self.dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn out(&self) -> std::path::PathBuf {
        self.dir.path().join("out.npy")
    }

    fn run(&self, args: &[&str]) -> Output {
        let _ = fs::remove_file(self.out());
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.arg("convert").arg(self.dir.path().join("clip.mkv")).args(args).arg("-o").arg(self.out());
        // The path holds nothing else.
        command.env("PATH", self.dir.path()).output().unwrap()
    }

    /// The shape and descriptor in the header, and the elements.
    fn array(&self, args: &[&str]) -> (String, Vec<u8>, String) {
        let done = self.run(args);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        let (header, data) = npy(&self.out());
        (header, data, stderr(&done))
    }
}

/// Three frames of 2 x 1 RGB pixels.
fn rgb() -> Vec<Vec<u8>> {
    (0..3u8).map(|frame| pam(2, 1, 3, 255, &[frame, 1, 2, 3, 4, 5])).collect()
}

fn has(header: &str, descr: &str, shape: &str) {
    assert!(header.contains(&format!("'descr': '{descr}'")) && header.contains(&format!("'shape': ({shape})")), "{header}");
}

#[test]
fn versions_that_reject_an_option_get_the_other_one() {
    for rejected in ["-vsync", "-fps_mode"] {
        let stand = Stand::new(&["rgb24"], &rgb(), 3);
        stand.put(&format!("rejects{rejected}"), "");
        let (header, data, _) = stand.array(&[]);
        has(&header, "|u1", "3, 1, 2, 3");
        assert_eq!(data, [[0, 1, 2, 3, 4, 5], [1, 1, 2, 3, 4, 5], [2, 1, 2, 3, 4, 5]].concat(), "without {rejected}");
    }
}

#[test]
fn without_ffprobe_ffmpeg_itself_tells_the_pixel_format() {
    let samples: Vec<u8> = [0x1234u16, 0xfffe].iter().flat_map(|sample| sample.to_be_bytes()).collect();
    let stand = Stand::new(&["gray16le"], &[pam(2, 1, 1, 65535, &samples)], 1);
    fs::remove_file(stand.dir.path().join("ffprobe")).unwrap();
    let (header, data, _) = stand.array(&[]);
    has(&header, "<u2", "1, 1, 2, 1");
    assert_eq!(data, [0x34, 0x12, 0xfe, 0xff]);
}

#[test]
fn depth_and_alpha_are_kept_and_losses_are_reported() {
    // Gray samples of 10 bits are delivered in the upper bits of 16.
    let ten: Vec<u8> = [0x3ffu16, 0x155].iter().flat_map(|sample| (sample << 6 | sample >> 4).to_be_bytes()).collect();
    let stand = Stand::new(&["gray10le"], &[pam(2, 1, 1, 65535, &ten)], 1);
    let (header, data, told) = stand.array(&[]);
    has(&header, "<u2", "1, 1, 2, 1");
    assert_eq!((data, told.contains("note")), (vec![0xff, 0x03, 0x55, 0x01], false), "{told}");

    let stand = Stand::new(&["rgba"], &[pam(2, 1, 4, 255, &[1, 2, 3, 4, 5, 6, 7, 8])], 1);
    let (header, data, told) = stand.array(&[]);
    has(&header, "|u1", "1, 1, 2, 4");
    assert_eq!((data, told.contains("note")), (vec![1, 2, 3, 4, 5, 6, 7, 8], false), "{told}");
    stand.put("frames.pam", pam(2, 1, 3, 255, &[1, 2, 3, 5, 6, 7]));
    let (header, data, told) = stand.array(&["--channels", "3"]);
    has(&header, "|u1", "1, 1, 2, 3");
    assert!(data == [1, 2, 3, 5, 6, 7] && told.contains("alpha"), "{told}");

    // The same for alpha in a separate stream.
    let stand = Stand::new(&["yuv420p"], &[pam(2, 1, 3, 255, &[1, 2, 3, 5, 6, 7])], 1);
    let beside = r#"{"streams": [{"index": 0, "codec_name": "vp9", "codec_type": "video", "pix_fmt": "yuv420p", "tags": {"alpha_mode": "1"}},
        {"index": 1, "codec_name": "opus", "codec_type": "audio"}], "format": {"format_name": "matroska,webm"}}"#;
    stand.put("streams.json", beside);
    let (_, data, told) = stand.array(&["--channels", "3"]);
    assert!(data == [1, 2, 3, 5, 6, 7] && told.contains("without their alpha") && told.contains("audio (opus)"), "{told}");

    // Fewer bits must be requested.
    let stand = Stand::new(&["gray16le"], &[pam(2, 1, 1, 255, &[7, 8])], 1);
    let (header, _, told) = stand.array(&["--dtype", "uint8"]);
    has(&header, "|u1", "1, 1, 2, 1");
    assert!(told.contains("bits"), "{told}");
    let refused = stand.run(&["--dtype", "uint8", "--strict"]);
    assert!(code(&refused) == 6 && !stand.out().exists(), "{}", stderr(&refused));
}

#[test]
fn several_streams_are_several_tensors() {
    let stand = Stand::new(&["rgb24", "gray"], &rgb(), 3);
    stand.put("other.pam", (10..13u8).flat_map(|frame| pam(2, 1, 1, 255, &[frame, frame])).collect::<Vec<u8>>());
    let refused = stand.run(&[]);
    assert_eq!(code(&refused), 2, "two arrays do not go into one file: {}", stderr(&refused));
    let (header, data, _) = stand.array(&["--stream", "1"]);
    has(&header, "|u1", "3, 1, 2, 1");
    assert_eq!(data, [10, 10, 11, 11, 12, 12]);
    let none = stand.run(&["--stream", "2"]);
    assert!(code(&none) == 2 && stderr(&none).contains("0 to 1"), "{}", stderr(&none));
}

#[test]
fn a_program_that_fails_by_itself_is_not_a_damaged_video() {
    let stand = Stand::new(&["rgb24"], &rgb(), 3);
    stand.program("ffmpeg", "#!/bin/sh\necho 'error while loading shared libraries: libx.so' >&2\nexit 127\n");
    let done = stand.run(&[]);
    assert!(code(&done) == 1 && stderr(&done).contains("libx.so") && !stand.out().exists(), "{}", stderr(&done));
    stand.program("ffmpeg", "#!/bin/sh\nkill -SEGV $$\n");
    assert_eq!(code(&stand.run(&[])), 1);
    assert!(!stand.out().exists());
}

#[test]
fn missing_or_damaged_frames_are_reported_and_can_be_salvaged() {
    // Some versions succeed without the frames behind a damaged one.
    let stand = Stand::new(&["rgb24"], &rgb(), 5);
    let done = stand.run(&[]);
    assert!(code(&done) == 3 && stderr(&done).contains('5') && !stand.out().exists(), "{}", stderr(&done));
    let (header, _, told) = stand.array(&["--salvage"]);
    has(&header, "|u1", "3, 1, 2, 3");
    assert!(told.contains("warning") && !told.contains("whole"), "{told}");
    // Other versions continue and complain.
    let stand = Stand::new(&["rgb24"], &rgb(), 3);
    stand.put("complaints", "[ffv1 @ 0x5] slice CRC mismatch\n");
    let done = stand.run(&[]);
    assert!(code(&done) == 3 && stderr(&done).contains("CRC mismatch") && !stand.out().exists(), "{}", stderr(&done));
    // It is unknown which frames are right.
    assert!(stderr(&done).contains("may be damaged") && !stderr(&done).contains("whole"), "{}", stderr(&done));
    // An edit list hides frames that the container counts; there are as many packets as frames.
    let stand = Stand::new(&["rgb24"], &rgb(), 5);
    stand.put("packets", "7,K__\n7,___\n7,___\n7,_D_\n0,___\n");
    stand.array(&[]);
}

#[test]
fn pictures_are_not_videos() {
    let stand = Stand::new(&["gray16le"], &rgb(), 1);
    for (name, front) in
        [("movie.tif", &b"II*\0\x08\0\0\0"[..]), ("one.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), ("one.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF")]
    {
        stand.put("clip.mkv", front);
        let done = stand.run(&["--format", "video"]);
        assert!(code(&done) == 6 && !stand.out().exists(), "{name}: {}", stderr(&done));
        let done = stand.run(&[]);
        assert!(code(&done) == 6 && stderr(&done).contains("image"), "{name}: {}", stderr(&done));
    }
}

#[test]
fn options_that_do_not_apply_to_videos_are_refused() {
    let stand = Stand::new(&["rgb24"], &rgb(), 3);
    for args in [
        &["--jpeg", "fast"][..],
        &["--ragged", "pad"],
        &["--strings", "pad"],
        &["--signature", "x"],
        &["--offset", "4"],
        &["--shape", "1,2,3"],
    ] {
        let done = stand.run(args);
        assert!(code(&done) == 2 && stderr(&done).contains(args[0]) && !stand.out().exists(), "{args:?}: {}", stderr(&done));
    }
    assert!(Path::new(&stand.dir.path().join("clip.mkv")).exists());
}

#[test]
fn frames_with_equal_times_are_all_kept() {
    let stand = Stand::new(&["rgb24"], &rgb(), 3);
    stand.put("same_times", "");
    let (header, data, _) = stand.array(&[]);
    assert!(header.contains("(3, 1, 2, 3)") && data.len() == 18, "{header}");
}

#[test]
fn narrowed_frames_are_compared_in_their_narrowed_form() {
    let frames: Vec<Vec<u8>> = (0..2u8).map(|frame| pam(2, 1, 1, 65535, &[frame, 200, 3, 4])).collect();
    let stand = Stand::new(&["gray16le"], &frames, 2);
    stand.put("narrow.pam", (0..2u8).flat_map(|frame| pam(2, 1, 1, 255, &[frame, 3])).collect::<Vec<u8>>());
    let (header, data, said) = stand.array(&["--dtype", "uint8"]);
    assert!(header.contains("|u1") && data == [0, 3, 1, 3] && said.contains("lower bits"), "{header} {said}");
    let clip = stand.dir.path().join("clip.mkv");
    let mmconvert = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.args(args).env("PATH", stand.dir.path()).output().unwrap()
    };
    let (out, clip) = (stand.out(), clip.to_str().unwrap());
    let verify = ["verify", out.to_str().unwrap(), "--against", clip];
    let same = mmconvert(&[&verify[..], &["--dtype", "uint8"]].concat());
    assert_eq!(code(&same), 0, "{}", stderr(&same));
    assert_eq!(code(&mmconvert(&verify)), 5);
    let dir = stand.dir.path().join("d");
    let dir = dir.to_str().unwrap();
    assert_eq!(code(&mmconvert(&["convert", clip, "--dtype", "uint8", "-o", &format!("{dir}/")])), 0);
    let same = mmconvert(&["verify", dir]);
    assert_eq!(code(&same), 0, "{}", stderr(&same));
}

#[test]
fn a_cut_transport_stream_is_reported() {
    let stand = Stand::new(&["rgb24"], &rgb(), 3);
    for (len, is_told) in [(188 * 4, false), (188 * 4 + 100, true)] {
        let mut packets = vec![0; len];
        packets.iter_mut().step_by(188).for_each(|byte| *byte = 0x47);
        stand.put("clip.mkv", packets);
        let (_, _, said) = stand.array(&[]);
        assert_eq!(said.contains("100 of 188 bytes"), is_told, "{said}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_ends_a_conversion_whose_programs_hang() {
    use rustix::process::{Pid, Signal, kill_process};
    // One hangs before any output, one in the middle, and one leaves a process behind that holds its pipe.
    for (program, text) in [
        ("ffmpeg", "#!/bin/sh\n: > \"${0%/*}/started\"\nexec /bin/sleep 1000\n"),
        ("ffprobe", "#!/bin/sh\n/bin/sleep 30 > /dev/null &\n: > \"${0%/*}/started\"\n"),
        ("ffprobe", "#!/bin/sh\n: > \"${0%/*}/started\"\nexec /bin/sleep 1000\n"),
        ("ffmpeg", "#!/bin/sh\ncase \"$*\" in *file:*) : > \"${0%/*}/started\"; exec /bin/sleep 1000;; esac\nprintf 'P7\\n'; /bin/cat\n"),
    ] {
        let stand = Stand::new(&["rgb24"], &rgb(), 3);
        stand.program(program, text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.arg("convert").arg(stand.dir.path().join("clip.mkv")).arg("-o").arg(stand.out()).env("PATH", stand.dir.path());
        let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        until(&format!("a start of {program}"), || stand.dir.path().join("started").exists());
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(code(&done), 130, "{program}: {}", stderr(&done));
        assert!(!stand.out().exists());
    }
}
