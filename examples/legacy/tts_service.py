"""The single-process service that chorus replaces: Coqui TTS behind JSON lines on stdin and stdout.

A faithful model of such a script, kept as an example of what runs in a chorus worker unchanged
(`chorus worker --engine-command "python tts_service.py --model DIR"`) and as the reference that
`chorus stdio` is tested against. Protocol 1.0: one JSON object a line, no ids, answers in order. Coqui's
voices that are made of phonemes need the command `espeak-ng` here; chorus brings it as a library.

    {"type":"request","text":"Hello.","outputPath":"/tmp/a.wav"}
    {"type":"response","success":true,"outputPath":"/tmp/a.wav","latencyMs":412.5}
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import wave
from typing import Any, Callable


class Service:
    """Answers one line after another."""

    def __init__(self, speak: Callable[[str, str], None], model: str) -> None:
        self.speak = speak
        self.model = model
        self.spoken = 0
        self.methods = {"synthesize": self.synthesize, "ping": self.ping, "status": self.status}

    def synthesize(self, request: dict[str, Any]) -> dict[str, Any]:
        """Speaks a text into a file."""
        text = request.get("text")
        if not isinstance(text, str) or not text.strip():
            raise ValueError("text is required")
        began = time.perf_counter()
        path = request.get("outputPath") or tempfile.mkstemp(suffix=".wav")[1]
        self.speak(text, path)
        self.spoken += 1
        return {"outputPath": path, "latencyMs": (time.perf_counter() - began) * 1000}

    def ping(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Is it there?"""
        return {"method": "ping"}

    def status(self, _request: dict[str, Any]) -> dict[str, Any]:
        """What it is."""
        return {"method": "status", "status": "ready", "models": [self.model], "spoken": self.spoken}

    def answer(self, line: str) -> dict[str, Any]:
        """The answer to a line; whatever goes wrong is one, too."""
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("the line is no JSON object")
            method = self.methods.get(request.get("method", "synthesize"))
            if method is None:
                raise ValueError(f"unknown method: {request['method']}")
            return {"type": "response", "success": True, **method(request)}
        except Exception as error:  # noqa: BLE001 (the old service never died of a request)
            return {"type": "error", "success": False, "error": str(error)}


def coqui(model: str) -> Callable[[str, str], None]:
    """Real Coqui: a folder with model.pth and config.json, or a name on its hub."""
    from TTS.api import TTS

    if os.path.isdir(model):
        files = {"model_path": f"{model}/model.pth", "config_path": f"{model}/config.json"}
        tts = TTS(progress_bar=False, **files)
    else:
        tts = TTS(model_name=model, progress_bar=False)
    return lambda text, path: tts.tts_to_file(text=text, file_path=path)


def tone(text: str, path: str) -> None:
    """No speech, for tests without a voice: 60 ms of a tone for each character, and Coqui's ways with a path."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    samples = bytearray()
    for index in range(len(text) * 22050 * 60 // 1000):
        samples += (8000 if index // 50 % 2 else -8000).to_bytes(2, "little", signed=True)
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(samples)


def main() -> None:
    """Serves until `shutdown` or the end of the input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tone", help="a voice's folder, a hub name, or: tone")
    model = parser.parse_args().model
    # The library prints to stdout, between the answers: parents have learnt to skip that.
    service = Service(tone if model == "tone" else coqui(model), os.path.basename(model))
    for line in sys.stdin:
        if not line.strip():
            continue
        stop = '"shutdown"' in line and json.loads(line).get("method") == "shutdown"
        answer = {"type": "response", "success": True, "method": "shutdown"} if stop else service.answer(line)
        print(json.dumps(answer), flush=True)
        if stop:
            return


if __name__ == "__main__":
    main()
