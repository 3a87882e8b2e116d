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
grade-internal = patient's own tissues, for screening only
probability-of-class = { $percent } for { $positive } versus { $negative } (T rule)
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
category-withheld = QCT density category: not reported
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
interval95-holds = 95 % interval: includes noise and calibration, excludes marrow-fat error
ellipse-column = Ellipse ± (k=1)
volume-column = Body, cm³
region-column = Region, mm²
withheld = not reported
level-cut-off = incomplete
no-level-measured = no lumbar level measured
t-score = T-score
z-score = Z-score
not-given = { $name }: not reported, see findings
score-basis = { $levels }: { $bmd }; reference { $mean } ± { $sd } mg/cm³ { $mineral }
reference-named = Reference: { $name } ({ $population }); not equivalent to DXA, the WHO classification does not apply
study-rule = Study rule, Xie 2022
study-rule-is = Study rule, Xie 2022: { $study_class }
study-rule-caveat = study class, not a diagnosis
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
slice-distance = spacing { $mm } mm
slices-alone = single slices
kernel-named = kernel { $name }
contrast-agent = contrast: { $agent }
contrast-left-open = contrast: unclear

## The refusal
title-refusal = Not measured: density is not reported
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
classes-of-model = classes as defined in the training of model { $name }; the measurement takes precedence
rad-score-alone = Rad-score only: { $value }

## The measured regions
title-overlay = Measured regions
plane-sagittal = Sagittal
plane-axial = Axial through { $level }
middle-of-volume = the middle of the volume
legend-body = outline: vertebral body
legend-region = filled: { $region }, BMD region
legend-rods = circles: rods
legend-second-region = dashed: { $region }

## Single slices
title-slices = Measured slices: vertebral levels not known
slice-level-unknown = { $slice }: level not known
slice-bmd-withheld = BMD not reported
slice-bmd = BMD { $value } mg/cm³ { $mineral }
slice-technique = { $mm } mm, tilted by { $degrees }°
legend-slice-body = outline: detected vertebral body
legend-slice-region = filled: BMD region
legend-slice-rods = circles: rods as read, mg/cm³ { $mineral }
no-rods = no rods

## The calibration
title-calibration = Calibration
rods-and-line = Rods and line
across-density = x axis: certified density, mg/cm³ { $mineral }
up-hu = y axis: HU
up-hu-less-water = y axis: HU minus the water of the rod
distance-from-line = Distance from the line, HU
bars-are-errors = bars: standard error of each mean
two-rods-on-line = two rods define their line exactly
rods-axial = Rods as read, axial
rods-elsewhere = This image shows no rods. They were scanned on this scanner ({ $date }).
earlier = earlier
rod-column = Rod
distance-column = distance
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

## Shapes of a deformed vertebral body
shape-wedge = wedge
shape-biconcave = biconcave
shape-crush = crush
the-study = the study
slice-numbered = slice { $number }
body-numbered = lumbar body { $number } of { $count }
body-briefly = body { $number }/{ $count }

## The laboratory's file
line-cells = line { $line } has { $cells } cells for { $columns } columns
line-beyond-columns = line { $line } continues beyond the last named column
line-quotation = the quotation marks of line { $line } do not match
first-line-quotation = the quotation marks of its first line do not match
row-not-used = the row is ignored
line-date = line { $line }: the date is not YYYY-MM-DD
line-number = line { $line }: { $name } is not a number
columns-missing = the file lacks the columns { $names }
file-unreadable = the file cannot be read ({ $error })
column-twice = a column name occurs twice
separator-wrong = columns are separated by { $sign } instead of commas
study-without-date-laboratory = the study has no date for matching laboratory values

## What may be absent from a report
output-bmd = BMD
output-t-score = T-score
output-z-score = Z-score
output-density-category = density category
output-study-class = study class
output-features = radiomic features
output-rad-score = rad-score
output-nomogram = nomogram
label-homocysteine = homocysteine

## Categories and patients
taken-postmenopausal = postmenopausal (50 or older)
taken-premenopausal = premenopausal (under 50)

## Calibration and scanner
calibration-phantom = phantom
calibration-asynchronous = asynchronous
calibration-internal = internal
not-stated = not stated
tube-voltage = tube voltage
region-of-interest = region of interest
slope = slope
signal-above = above its limit
signal-below = below its limit
signal-upwards = shifted upwards (CUSUM)
signal-downwards = shifted downwards (CUSUM)

## Why a series cannot be measured
no-slices = no slices
single-slice = single slice
duplicate-positions = duplicate slice positions
several-passes = several passes in one series
slice-gap = missing slices
spacing-varies = slice spacing varies
orientation-varies = slice orientation varies
size-varies = matrix or pixel spacing varies
gantry-tilt = gantry tilt
off-line = slices shifted against one another
geometry-missing = geometry missing
rescale-missing = rescale to Hounsfield units missing
technique-varies = technique varies between slices
energy-unsuited = the limits for rods, slope and vertebrae do not apply at the energy of the image
material-image = a material was removed from the image or is shown alone
not-greyscale = not a single-frame greyscale image
undecodable = pixels cannot be decoded
damaged = the header of an image is damaged
too-large = larger than the limits of this node
parts-overlap = { $count } parts overlap and none is complete by itself; distinguished by { $attributes }
passes-woven = image spacing repeats as { $steps } mm, consistent with interleaved passes
energies-suited = { $energy }; the limits apply from { $low } to { $high } keV
too-many-images = { $images } images exceed limits.slices = { $most }
matrix-too-large = { $rows } x { $columns } pixels exceed limits.matrix = { $most }
tilt-contradicted = { $stated } degrees by the header, { $shown } degrees by the images
slices-sheared = slices are sheared by { $degrees } degrees
different-images-at = different images at { $places }
places = { $depths } mm
places-and-more = { $depths } mm and { $more } more places
image-missing-after = image spacing { $step } mm, images missing after { $places }
spacing-uneven = { $least } to { $most } mm, irregular at { $places }
beside-line = up to { $distance } mm off the line through the first and the last slice
orientation-odd = the orientation is not a pair of perpendicular unit vectors
pixel-spacing-odd = PixelSpacing is not positive
rows-or-columns = Rows or Columns
decoded-otherwise = decoded to { $shape }
frames-not-described = multi-frame CT without a description of its frames
made-here = made by this node
not-original = not an original acquisition (ImageType)
localizer = localizer
reformatted = not an acquired slice (volumetric properties)
no-orientation = no orientation
not-axial = not axial
reason-of-some = { $reason } ({ $count } of { $images } images)
only-few-slices =
    { $count ->
        [one] only 1 slice
       *[other] only { $count } slices
    }
covers-little = covers only { $length } mm
stack-in-parts = slices of one stack, distributed over { $count } series
no-ct-image = no CT image
reason-with-detail = { $reason }: { $detail }

## Passes of one series
temporal-position = temporal position
cardiac-phase = cardiac phase
contrast-medium = contrast medium
acquisition-number = acquisition number
acquisition-time = acquisition time
irradiation-event = irradiation event
image-number = image number
first-complete = the first complete pass
first-complete-native = the first complete pass without contrast medium
displaced-by = displaced by { $distance } mm
nearer-by = more similar to one neighbour than to the other by { $share }

## Why another series is measured
not-chosen-no-phantom = no phantom in view, unlike the chosen series
not-chosen-phantom-unusable = unusable phantom, unlike the chosen series
not-chosen-contrast-given = contrast medium given, unlike in the chosen series
not-chosen-contrast-doubtful = contrast medium unclear, unlike in the chosen series
not-chosen-spectrum = no conventional spectrum, unlike the chosen series
not-chosen-coverage = less coverage than the chosen series
not-chosen-kernel = sharper kernel than the chosen series
not-chosen-thickness = thicker slices than the chosen series
not-chosen-acquired-later = acquired later than the chosen series
not-chosen-series-number = higher series number than the chosen series
not-chosen-same = same technique as the chosen series
not-chosen-single-slices = single slices in addition to a volume
not-chosen-repetition = a repetition of the chosen slices
advantage-no-contrast = no contrast medium
advantage-no-doubt = certainty about contrast medium
advantage-spectrum = a conventional spectrum
advantage-coverage = more of the lumbar spine
advantage-kernel = a softer kernel
advantage-thickness = thinner slices

## Contrast medium that a header leaves open
vessels-unread = the great vessels could not be measured
vessels-read = the great vessels measure { $hu } HU
contrast-documented = contrast medium is documented

## A segmentation that came along
seg-several = several segmentations match
seg-other-series = it was drawn on another series
seg-frame-of-reference = its frame of reference is not the series'
seg-own = it was created by this node
seg-no-segmentation = it is not a DICOM segmentation
seg-no-level = none of its segments is coded or configured as a vertebra
seg-overlap = its segments of different vertebrae overlap
seg-geometry = its frames do not lie on a regular grid
seg-damaged = it cannot be decoded
seg-voxels = { $count } voxels
seg-orientation = orientation or pixel spacing varies
seg-shifted = frames are shifted against each other
seg-uneven = frames are unevenly spaced

## A mask's numbers and names
mask-empty = the mask is empty
mask-unknown-levels = unknown levels: { $names }
mask-only-value = its only value is { $value }
mask-value-ambiguous = its only value { $value } means different vertebrae in different conventions
mask-name-contradicts = its file name says { $named }, its value { $value } represents { $level }
mask-no-vertebra = none of the values { $values } represents a vertebra in this convention
mask-value-no-vertebra = the single value { $value } represents no lumbar vertebra
mask-first-version = the values { $values } are those of TotalSegmentator's first version
mask-convention-unknown = the values { $values } do not show whether they are TotalSegmentator's or VerSe's
mask-grid = grids differ in { $what }: { $left } against { $right }
canal-missing = whole vertebrae are drawn, but the spinal canal that bounds their bodies was not found
body-inseparable = { $level }: the body cannot be separated from the posterior elements

## Levels
level-missing = { $level } is missing
level-not-below = { $lower } does not lie below { $upper }
levels-apart = { $upper } and { $lower } lie { $distance } mm apart
levels-apart-along = { $upper } and { $lower } lie { $distance } mm apart along the spine
spacing-changes = the spacing changes from { $before } to { $after } mm at { $level }
volumes-differ = { $upper } measures { $more } cm3 and { $lower } { $less } cm3
level-holds = { $level } measures { $volume } cm3
level-high = { $level } is { $height } mm high
bodies-shrink = vertebral bodies become smaller downwards, each { $share } of the one above
level-in-pieces = { $level } is in two pieces
gap-between = { $gap } mm lie between { $upper } and { $lower }
gap-to-sacrum = { $gap } mm lie between L5 and the sacrum
sacrum-follows = the sacrum follows { $level }
sacrum-not-below = the sacrum does not lie below L5
mask-names-l6 = the mask contains an L6
counted-otherwise = { $level } is { $other } when counted from { $anchors }
vertebrae-between = { $count } vertebrae lie between the sacrum and the last rib
sixth-body = a sixth complete body without ribs or wings lies above the sacrum
no-ribs-as-counted = { $level } by count has no ribs
stated-otherwise = { $level } by count was stated to be { $stated }
ribs-as-counted = { $level } by count has ribs
sacrum = sacrum
last-rib = last rib
ellipse-in-little-bone = only { $volume } cm3 of the mid-body ellipse lie in cancellous bone

## Calibration by the patient's own tissues
tissue-too-little = too little of { $tissues } was found
blood-enhanced = blood measures { $hu } HU, as with contrast medium
no-energies = no effective energies are known for { $kvp } kV
energy-implausible = the tissues indicate { $kev } keV; { $kvp } kV implies { $lowest } to { $highest } keV
hu-off = HU would be off by { $offset } HU and { $percent } %

## Calibration by an earlier scan of a phantom
history-missing = only a running node keeps earlier scans
single-slices-not-used = single slices are not used for other studies
no-passed-reading = no reading with a known technique passed all checks
serial-not-stated = the scanner's serial number is not stated
kvp-not-stated = the tube voltage is not stated
kernel-not-stated = the kernel is not stated
study-without-date = the study has no date
no-reading = no phantom has been read on scanner { $scanner }
no-earlier-reading = no phantom had been read on scanner { $scanner } before the study
nearest-differs = the nearest reading, of { $date }, differs: { $differences }
differs-kvp = tube voltage { $kvp } kV
differs-kernel = kernel { $kernel }
differs-phantom = phantom { $phantom }
phantom-described-otherwise = the description of its phantom has changed
technique-not-kept = its technique was not recorded
expired-on = expired on { $date }
phantom-failed = its phantom did not pass all checks
phantom-failed-checks = its phantom did not pass all checks ({ $codes })
quantity-not-stated = { $quantity } not stated
quantity-is = { $quantity } { $value }
quantity-off = { $quantity } differs by { $distance } mm
table-height = table height
field-of-view = field of view
single-slices = single slices
a-volume = a volume
failed-check-since = on { $date }, no earlier than the reading to be used, a phantom on this scanner did not pass all checks ({ $codes })
scanner-drifts = the scanner drifts: at { $kvp } kV the phantom's { $quantity } was { $signal } on { $date }
scanner-drifts-still = { $drift } and has not been in control since

## A reference or a model that does not fit
equivalent-differs = it is stated in { $theirs }; the phantom measures { $own }
grade-differs = it requires { $grades } calibration; the calibration of this study is { $grade }
sex-differs = it applies to sex { $sex }
range = { $low } to { $high }
kvp-outside = { $kvp } kV is outside { $limits } kV
slices-outside = slices { $spacing } mm apart are outside { $limits } mm
pixels-outside = pixels of { $size } mm are outside { $limits } mm
rad-score-outside = a rad-score of { $score } is outside { $limits }
input-outside = { $name } { $value } is outside { $limits }
region-differs = its region is the { $theirs }; that of this study is the { $own }
region-is-core = core
region-is-ellipse = ellipse
levels-needed = it requires { $levels }; not measured: { $unmeasured }
levels-taken-as = vertebral levels (taken as { $levels })
energy-differs = the energy type is { $own }; { $required } is required
filter-differs = the spectral filter is { $own }; { $required } is required
slices-stand-alone = its slices are single slices
pixel-spacing-not-stated = the pixel spacing is not stated
densities-differ = densities are in { $own }; the model's labels are based on { $theirs }
features-otherwise = its features were computed with other settings
model-changed = another model was activated during measurement; retry the study
region-slices = { $slices } slices in the region, { $needed } required
region-not-finite = a voxel of the region has no finite HU
feature-undefined = no finite value for { $names }
mean-density-of = Mean density of { $first } and { $second }
interval-with-unit = { $low } to { $high } { $unit }
many = many

## Spectra
energy-conventional = conventional
energy-virtual = virtual { $energy } keV
energy-virtual-described-at = virtual { $energy } keV by its description
energy-virtual-described = virtual by its description
energy-photon-counting = photon counting
energy-multi = multi-energy { $words }
filter-none = none
filter-tin = tin
filter-tin-described = tin by its description
filter-silver = silver
filter-gold = gold
filter-copper = copper
filter-molybdenum = molybdenum
filter-rhodium = rhodium
filter-niobium = niobium
filter-tungsten = tungsten
filter-europium = europium
filter-lead = lead

## An earlier study
same-day = both studies are of the same day; their order is unknown
condition-not-stated = neither study states the { $condition }
condition-differs = its { $condition } is { $theirs }; that of this study is { $own }
condition-scanner = scanner
condition-equivalent = mineral equivalent
condition-phantom = phantom
condition-method = calibration method
condition-rules = configuration of engine, regions and calibration
condition-engine = segmentation engine
condition-filter = spectral filter
condition-energy = energy type
condition-kernel = convolution kernel
condition-reconstruction = reconstruction
condition-phantom-description = description of the phantom
condition-model = scanner model
levels-not-confirmed = vertebral levels are not confirmed in both studies
contrast-in-either = contrast medium was given or is suspected
no-common-level = no level was measured in both studies
no-level = no level
