# The words of the pictures, and those that findings fill in, in English. One message for each phrase, by its id;
# what stands in {braces} is filled in. zh.ftl holds the same ids with the same arguments.

## Every picture
research-use-only = RESEARCH USE ONLY
demonstration-model = DEMONSTRATION MODEL - NOT FOR CLINICAL USE
demonstration-reference = DEMONSTRATION REFERENCE - NOT FOR CLINICAL USE
study-of-date = Study of { $date }
unknown-date = unknown date
issued-at = issued { $time }
preliminary-result = preliminary, unverified result of software
amended-earlier = AMENDED, replaces an earlier report
amended-report-of = AMENDED, replaces the report of { $time }
amended-images = images arrived later
amended-segmentation = a segmentation arrived later
amended-unrecorded = an archive holds an earlier report of which this node has no record
amended-identity = the identification of the patient or the order was corrected
made-with-segmentation = segmentation { $name }
made-with-model = model { $name }
made-with-configuration = configuration { $hash }
more-findings = and { $count } more: see the structured report
more-in-report = and more: see the structured report
severity-refusal = REFUSED
severity-caution = CAUTION
severity-info = NOTE

## Values
equivalent-of = { $mineral } equivalent
mean-of-levels = mean of { $levels }
interval = { $low } to { $high }
years = years
normal = normal
low-bone-mass = low bone mass
osteoporosis = osteoporosis
osteopenia = osteopenia
class-normal = normal (T ≥ −1)
class-osteopenia = osteopenia (−2.5 < T < −1)
class-osteoporosis = osteoporosis (T ≤ −2.5)
region-core = cancellous core
region-ellipse = mid-body ellipse
grade-phantom = phantom in view
grade-asynchronous = phantom scanned earlier
grade-internal = the patient's own tissues, for screening only
probability-of-class = { $percent } for { $positive } rather than { $negative } (T rule)
method-two-point = two-point
method-least-squares = least-squares
method-mindways = mindways
method-internal = internal
method-asynchronous = asynchronous { $method }
own-tissues = own tissues
water = water
air = air
adipose = adipose
blood = blood
muscle = muscle

## The answer, and its table
title-answer = Lumbar QCT: bone density
category-is = QCT density category = { $category }
category-withheld = QCT density category: withheld
see-findings = see the findings
mean-of-two-levels = mean of { $first } and { $second }: { $bmd } mg/cm³ ({ $mineral })
converted-from = converted from { $mineral }
density-rule = rule: > 120 normal, 80 to 120 low, < 80 osteoporosis
findings-title = Findings and caveats
bmd = BMD
bmd-in = BMD, mg/cm³ ({ $mineral })
level = Level
level-unknown = Level not known
interval95 = 95 % interval
interval95-holds = 95 % interval: noise and calibration; it excludes marrow-fat error
ellipse-column = Ellipse ± (k=1)
volume-column = Body, cm³
region-column = Region, mm²
withheld = withheld
level-cut-off = cut off
no-level-measured = no lumbar level measured
t-score = T-score
z-score = Z-score
not-given = { $name }: not given, see findings
score-basis = { $levels }: { $bmd }; reference { $mean } ± { $sd } mg/cm³ { $mineral }
reference-named = Reference: { $name } ({ $population }); not equivalent to DXA, WHO's classes do not apply
study-rule = Study rule, Xie 2022
study-rule-is = Study rule, Xie 2022: { $study_class }
study-rule-caveat = a class of the study, not a diagnosis
model-results = Rad-score and nomogram
rad-score-is = Rad-score { $value }
nomogram-is = Nomogram { $points } points: { $probability }
nomogram-missing = Not available: nomogram not computed
calibration-line = Calibration: { $facts }
calibration-of-slices = Calibration of each slice by its own rods: { $facts }
rods-read = rods: { $read }
tissues-read = tissues: { $read }
tissues-read-at = tissues at { $energy } keV: { $read }
technique-line = Technique: { $facts }
kv-not-stated = kV not stated
slice-thickness = { $mm } mm slices
slice-distance = every { $mm } mm
slices-alone = each alone
kernel-named = kernel { $name }
contrast-agent = contrast: { $agent }
contrast-left-open = contrast left open

## The refusal
title-refusal = Not measured: no density is given
also-noted = Also noted

## The nomogram
title-nomogram = Nomogram
this-patient = this patient
points-column = points
points-axis = Points
total-points-axis = Total points
probability-axis = Probability of
rad-score-axis = Rad-score
age-axis = Age
alp-axis = ALP
alkaline-phosphatase-axis = Alkaline phosphatase
homocysteine-axis = Homocysteine
taken-on = on { $date }
date-not-stated = date not stated
total-points-are = Total { $points } points: { $probability }
measured-t-score = Measured T-score { $value }
classes-of-model = classes as model { $name } was taught them; the measurement leads
rad-score-alone = Rad-score alone: { $value }

## The measured regions
title-overlay = Measured regions
plane-sagittal = Sagittal
plane-axial = Axial through { $level }
middle-of-volume = the middle of the volume
legend-body = outline: vertebral body
legend-region = filled: { $region }, where BMD is read
legend-rods = circles: rods
legend-second-region = dashed: { $region }

## Single slices
title-slices = Measured slices: vertebral levels not known
slice-level-unknown = { $slice }: level not known
slice-bmd-withheld = BMD withheld
slice-bmd = BMD { $value } mg/cm³ { $mineral }
slice-technique = { $mm } mm, tilted by { $degrees }°
legend-slice-body = outline: taken for the vertebral body
legend-slice-region = filled: region where BMD is read
legend-slice-rods = circles: rods as read, mg/cm³ { $mineral }
no-rods = no rods

## The calibration
title-calibration = Calibration
rods-and-line = Rods and line
across-density = across: certified density, mg/cm³ { $mineral }
up-hu = up: HU
up-hu-less-water = up: HU less the rod's water
distance-from-line = Distance from the line, HU
bars-are-errors = bars: standard error of each mean
two-rods-on-line = two rods always lie on their line
rods-axial = Rods as read, axial
rods-elsewhere = No rods in this image: they were scanned on this scanner, { $date }.
earlier = earlier
rod-column = Rod
distance-column = off the line
not-in-fit = not in the fit
rods-not-in-fit = not in the fit: { $rods }
fact-method = method: { $name }
fact-phantom = phantom: { $name }
fact-grade = grade: { $grade }
fact-largest-distance = largest distance { $hu } HU

## Lists: of values, of statements beside each other, of values that count together
list = { $first }, { $rest }
clauses = { $first }; { $rest }
together = { $first } and { $rest }
