"""The pages as people use them: in a browser, by keyboard, without scripts, and by who may."""
