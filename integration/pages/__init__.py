"""The pages for the people who run the relay. Each shows what an operators' endpoint shows, too."""
