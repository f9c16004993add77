"""VERB accept: who sends, is it sound, keep its bytes, queue it, answer."""
